"""Geometry first: where links, objects and background go when the gripper moves, and where each pixel comes from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fakes.panda import HOME, ROBOT

from geo4d_ros.errors import CheckpointError, InvalidInputError
from geo4d_ros.generation.loading import load_generator, read_by
from geo4d_ros.generation.two_view import composed as composed_module
from geo4d_ros.generation.two_view.background import background_of
from geo4d_ros.generation.two_view.composed import ComposedPredictor
from geo4d_ros.generation.two_view.composer import Origin, Views, compose, draw_robot
from geo4d_ros.generation.two_view.instruction import InstructionReader
from geo4d_ros.generation.two_view.motion_model import Future, MotionModel, level_frame
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.generation.two_view.robot_surface import HAND, surface_of
from geo4d_ros.generation.two_view.scene_head import SceneHead
from geo4d_ros.geometry.cameras import intrinsics, look_at, unproject
from geo4d_ros.geometry.transforms import invert, make_transform, transform_points
from geo4d_ros.robots.inverse_kinematics import shared_kinematics
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.types import Observation, RgbdFrame

SIZE = (48, 64)
K = intrinsics(60, SIZE[1], SIZE[0])
T_BASE_VIEW = np.stack([look_at(np.array([1.3, 0.4, 0.7]), np.array([0.45, 0, 0.2])),
                        look_at(np.array([0.9, -0.9, 0.7]), np.array([0.45, 0, 0.2]))])
TEXTS = {'apple': ['put the apple into the bin', 'drop the apple'],
         'cereal': ['push the cereal box', 'store the cereal'],
         'spatula': ['lay the spatula on the mat', 'move the spatula']}
DOWN = make_transform(np.diag([1.0, -1.0, -1.0]), np.array([0.45, 0.0, 0.05]))


def table(T_base_view: np.ndarray) -> np.ndarray:
    """Depth (H, W) of the plane z = 0."""
    rays = unproject(np.ones(SIZE, np.float32), K) @ T_base_view[:3, :3].T
    return (-T_base_view[2, 3] / rays[..., 2]).astype(np.float32)


@pytest.fixture(scope='module')
def scene():
    """Two views of the robot at home over a table, its true state, and what the composer needs."""
    surface, kinematics = surface_of(), shared_kinematics()
    links = surface.link_poses(HOME[None], np.array([0.08]))
    rgb, depth = [], []
    for T in T_BASE_VIEW:
        drawn, ground = draw_robot(surface, links, K, T, SIZE), table(T)
        on = drawn.link[0] >= 0
        rgb.append(np.where(on[..., None], [200, 200, 210], [90, 60, 30]).astype(np.uint8))
        depth.append(np.where(on, drawn.depth[0], ground).astype(np.float32))
    views = Views(np.stack(rgb), np.stack(depth), np.stack([K, K]), T_BASE_VIEW, np.ones(2, bool),
                  np.zeros((2, *SIZE), int))
    return surface, views, kinematics.forward(HOME), kinematics.arm_points(HOME[None])[0]


def test_the_robot_is_located_from_its_link_origins(scene):
    surface, _, T_base_gripper, arm_points = scene
    T_ref_base = make_transform(look_at(np.array([1.0, 1.0, 1.0]), np.zeros(3))[:3, :3], np.array([0.1, 0.2, 0.9]))
    T_found, q = surface.locate(transform_points(T_ref_base, arm_points), T_ref_base @ T_base_gripper)
    hand = surface.links.index('panda_hand')
    placed = T_found @ surface.link_poses(q[None], np.array([0.0]))[0, hand]
    true = T_ref_base @ surface.link_poses(HOME[None], np.array([0.0]))[0, hand]
    np.testing.assert_allclose(placed, true, atol=1e-4)
    np.testing.assert_allclose(T_found[:3, 2], T_ref_base[:3, 2], atol=1e-6)


def test_links_of_another_robot_are_refused(scene):
    surface, other = scene[0], load_robot('ur5e_2f85')
    kinematics = shared_kinematics('ur5e_2f85')
    with pytest.raises(InvalidInputError, match='fit no posture of panda'):
        surface.locate(kinematics.arm_points(other.home[None])[0], kinematics.forward(other.home))


def test_drawn_depth_is_the_mesh_seen_by_a_ray(scene):
    import trimesh


    surface, _, _, _ = scene
    links = surface.link_poses(HOME[None], np.array([0.08]))
    drawn = draw_robot(surface, links, K, T_BASE_VIEW[0], SIZE)
    hand = surface.links.index('panda_hand')
    rows, columns = np.nonzero(drawn.link[0] == hand)
    inner = slice(0, None, 7)
    mesh = trimesh.load(ROBOT.mesh_path('meshes/hand.stl')).apply_transform(invert(T_BASE_VIEW[0]) @ links[0, hand])
    ray = unproject(np.ones(SIZE, np.float32), K)[rows, columns][inner].astype(float)
    # Where each ray (z = 1) meets each triangle: solve a + u (b - a) + v (c - a) = z ray.
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    A = np.stack(np.broadcast_arrays(ray[:, None], (a - b)[None], (a - c)[None]), -1)
    z, u, v = np.moveaxis(np.linalg.pinv(A) @ a[None, ..., None], -2, 0)[..., 0]
    hit = np.where((u >= 0) & (v >= 0) & (u + v <= 1) & (z > 0), z, np.inf).min(1)
    on = np.isfinite(hit)
    assert on.mean() > 0.6 and np.median(np.abs(hit - drawn.depth[0][rows, columns][inner])[on]) < 0.003


def along(surface, views, path):
    """The video of a gripper path (T+1, 4, 4) with open fingers; no object moves."""
    q, missed = surface.follow(path, HOME)
    assert missed.max() < 1e-3
    return compose(surface, views, q, np.full(len(path), 0.08), np.tile(np.eye(4), (len(path), 1, 1)))


def test_nothing_moves_when_the_gripper_stays(scene):
    surface, views, T, _ = scene
    layers = along(surface, views, np.stack([T] * 3))
    np.testing.assert_array_equal(layers.rgb[:, 0], views.rgb)
    assert np.abs(layers.depth[:, 2] - views.depth).max() < 0.03
    assert np.abs(layers.rgb[:, 2].astype(int) - views.rgb).mean() < 4


def test_a_lifted_arm_uncovers_the_table_and_says_so(scene):
    surface, views, T, _ = scene
    path = np.stack([T] * 3)
    path[1:, 2, 3] += 0.15
    layers = along(surface, views, path)
    for v in range(2):
        gone = (layers.robot[v, 0] >= HAND) & (layers.robot[v, 2] == 0)
        assert gone.sum() > 10
        assert np.isin(layers.origin[v, 2][gone], (Origin.OTHER_VIEW, Origin.GUESSED)).all()
        assert np.median(np.abs(layers.depth[v, 2] - table(T_BASE_VIEW[v]))[gone]) < 0.03
        np.testing.assert_array_equal(layers.origin[v, 2] == Origin.DRAWN, layers.robot[v, 2] > 0)
        outside = (layers.origin[v, 2] == Origin.COPIED)
        np.testing.assert_array_equal(layers.rgb[v, 2][outside], views.rgb[v][outside])


def test_an_unplaced_view_repeats_its_frame_zero(scene):
    surface, views, T, _ = scene
    path = np.stack([T] * 2)
    path[1, 2, 3] += 0.1
    layers = along(surface, replace(views, seen=np.array([True, False])), path)
    np.testing.assert_array_equal(layers.rgb[1, 1], views.rgb[1])
    assert (layers.rgb[0, 1] != views.rgb[0]).any()


def test_the_other_view_shows_what_one_view_cannot_see():
    depth = np.stack([table(T) for T in T_BASE_VIEW])
    rgb = np.tile(np.array([40, 80, 120], np.uint8), (2, *SIZE, 1))
    resting = np.ones((2, *SIZE), bool)
    resting[0, 20:28, 26:36] = False
    shown = np.where(resting[..., None], rgb, 255).astype(np.uint8)
    found = background_of(shown, np.where(resting, depth, 0.3), resting, resting, np.stack([K, K]),
                          T_BASE_VIEW, np.ones(2, bool))
    hole = ~resting[0]
    assert found.other[0][hole].mean() > 0.7
    assert np.abs(found.depth[0] - depth[0])[hole].max() < 0.06  # a pixel spans some centimetres of the table
    assert np.abs(found.rgb[0] - rgb[0])[hole].max() < 3


def test_the_table_behind_what_moves_takes_the_tables_mean_colour():
    depth = np.stack([table(T) for T in T_BASE_VIEW])[:1]
    rgb = np.tile(np.array([40, 80, 120], np.uint8), (1, *SIZE, 1))
    resting = np.ones((1, *SIZE), bool)
    resting[0, 20:25, 26:36] = False
    rgb[0, 19, 26:36] = 255  # a rim of the thing that its mask misses
    found = background_of(rgb, np.where(resting, depth, 0.3), resting, resting, K[None], T_BASE_VIEW[:1],
                          np.ones(1, bool))
    assert np.abs(found.rgb[0][~resting[0]] - [40, 80, 120]).max() < 15
    assert np.abs(found.depth[0] - depth[0])[~resting[0]].max() < 0.02


def test_a_motion_too_small_to_see_is_none():
    motion = np.stack([make_transform(None, np.array([0.005, 0, 0])), make_transform(None, np.array([0.05, 0, 0]))])
    out = composed_module.stilled(motion, np.array([0.5, 0.1, 0]))
    np.testing.assert_array_equal(out, [np.eye(4), motion[1]])


def test_words_tell_the_task_and_nonsense_is_refused(tmp_path):
    reader = InstructionReader.fit(TEXTS)
    reader.save(tmp_path / 'words.json')
    reader = InstructionReader.load(tmp_path / 'words.json')
    assert [reader.task_of(t) for t in ('please take the Apple', 'cereals now', 'a spatula!')] == [0, 1, 2]
    for text in ('do it', 'the apple and the cereal', ''):
        with pytest.raises(InvalidInputError, match='known tasks'):
            reader.task_of(text)


@pytest.fixture
def predictor(monkeypatch):
    monkeypatch.setattr(composed_module, 'register', lambda views: (
        (invert(T_BASE_VIEW[0]) @ T_BASE_VIEW)[:len(views)], np.ones(len(views), bool)))
    torch.manual_seed(0)
    return ComposedPredictor(SceneHead(channels=8), MotionModel(width=16, layers=1, points=8),
                             InstructionReader.fit(TEXTS), size=SIZE)


@pytest.fixture
def observation(scene):
    _, views, T_base_gripper, arm_points = scene
    frames = tuple(RgbdFrame(rgb, depth, K, stamp=5) for rgb, depth in zip(views.rgb, views.depth, strict=True))
    T_ref_base = invert(T_BASE_VIEW[0])
    return Observation(frames, T_ref_base @ T_base_gripper, 0.08, arm_points=transform_points(T_ref_base, arm_points))


def test_a_prediction_keeps_the_contract(predictor, observation):
    video = predictor.predict(replace(observation, instruction='put the apple into the bin'))
    assert video.rgb.shape == (2, 11, *SIZE, 3) and video.origin.shape == (2, 11, *SIZE)
    np.testing.assert_array_equal(video.rgb[:, 0], [f.rgb for f in observation.views])
    assert (video.origin[:, 0] == Origin.COPIED).all() and (video.origin[:, 1:] == Origin.DRAWN).any()
    np.testing.assert_array_equal(video.rgb, predictor.predict(replace(
        observation, instruction='put the apple into the bin')).rgb)
    assert predictor.predict(replace(observation, views=observation.views[:1])).views == 1
    for lacking in ({'arm_points': None}, {'opening': None}, {'instruction': 'sing'}):
        with pytest.raises(InvalidInputError):
            predictor.predict(replace(observation, **lacking))


def test_the_instruction_says_whose_object_is_handled(predictor, observation, monkeypatch):
    classes = np.zeros((2, *SIZE), int)
    classes[:, 30:36, 30:36], classes[:, 40:44, 40:44] = predictor.scene_head.object_class(0), 4
    monkeypatch.setattr(predictor, '_look', lambda *_: (classes, np.zeros((2, 8, 2, 2))))
    seen = [predictor.predict(replace(observation, instruction=text)).scene['object_pixels'] for text in (
        'drop the apple', 'push the cereal box', None)]
    assert seen == [72, 32, 104]


def test_an_object_between_the_fingers_is_the_one_that_is_handled(predictor, scene):
    _, _, T_base_gripper, _ = scene
    in_hand = T_base_gripper[:3, 3] + np.random.default_rng(0).uniform(-0.02, 0.02, (20, 3))
    far = np.random.default_rng(0).uniform(0, 0.05, (400, 3)) + np.array([0.4, 0.3, 0])
    things = [composed_module.Thing(0, far, far, 400), composed_module.Thing(1, in_hand, far, 20)]
    assert predictor._chosen(things, None, T_base_gripper, 0.05)[0].task == 1
    assert predictor._chosen(things, 0, T_base_gripper, 0.05)[0].task == 0


def test_the_first_future_that_the_arm_can_follow_is_shown(predictor, scene, monkeypatch):
    _, _, T_base_gripper, _ = scene
    away = [np.tile(make_transform(None, np.array([x, 0, 0])), (10, 1, 1)) for x in (0.9, 0.9, 0.02, 0.03)]
    start = np.eye(4)
    start[:3, :3] = (invert(level_frame(T_base_gripper)) @ T_base_gripper)[:3, :3]
    gripper = torch.from_numpy(np.stack(away) @ start)
    still = torch.eye(4).expand(4, 10, 4, 4)
    monkeypatch.setattr(predictor.motion, 'sample', lambda *_, **__: Future(gripper, torch.full((4, 10), 0.08), still))
    thing = composed_module.Thing(0, np.zeros((0, 3)), np.zeros((0, 3)), 0)
    found = predictor._foresee(thing, T_base_gripper, 0.08, HOME, 0)
    assert np.linalg.norm(found.gripper[1, :3, 3] - T_base_gripper[:3, 3]) == pytest.approx(0.02, abs=1e-6)
    assert found.q.shape == (11, 7)


def test_the_video_read_out_gets_a_painter_that_draws_no_robot(predictor, tmp_path):
    TwoViewPredictor(small_network(), 'small').save_pretrained(tmp_path / 'small')
    predictor.painted = tmp_path / 'small'
    assert isinstance(read_by(predictor, 'video'), TwoViewPredictor)
    assert read_by(predictor, 'fused') is predictor


def small_network():
    return TwoViewNetwork(height=SIZE[0], width=SIZE[1], channels=16, dim=24, heads=2, encoder_layers=1, pointers=2,
                          refinements=1)


def test_a_saved_one_loads_with_the_painting_network_beside_it(predictor, tmp_path):
    TwoViewPredictor(small_network(), 'small').save_pretrained(tmp_path / 'small')
    predictor.save_pretrained(tmp_path / 'composed', '../small')
    loaded = load_generator(tmp_path / 'composed')
    assert isinstance(loaded, ComposedPredictor) and loaded.reader.tasks == predictor.reader.tasks
    assert isinstance(loaded.pure_video(), TwoViewPredictor)
    (tmp_path / 'small').rename(tmp_path / 'gone')
    with pytest.raises(CheckpointError, match='missing'):
        load_generator(tmp_path / 'composed')
