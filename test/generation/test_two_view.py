"""The two-view network and its guide: geometry that must hold for any weights, and the predictor's contract."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geo4d_ros.errors import InvalidInputError, RegistrationError
from geo4d_ros.generation.two_view import predictor as predictor_module
from geo4d_ros.generation.two_view.guide import (
    ARM,
    FINGER,
    HAND,
    background_plate,
    body_guide,
    pixel_rays,
    splat,
)
from geo4d_ros.generation.two_view.layers import Attention
from geo4d_ros.generation.two_view.network import TwoViewNetwork
from geo4d_ros.generation.two_view.predictor import TwoViewPredictor
from geo4d_ros.geometry.cameras import intrinsics, unproject
from geo4d_ros.geometry.transforms import from_rotvec, invert, make_transform, transform_points
from geo4d_ros.types import Observation, RgbdFrame

HEIGHT, WIDTH = 32, 48
TINY = dict(height=HEIGHT, width=WIDTH, channels=16, dim=24, heads=2, encoder_layers=1, pointers=2, refinements=1)


@pytest.fixture
def predictor(monkeypatch):
    fixed_registration(monkeypatch)
    torch.manual_seed(0)
    return TwoViewPredictor(TwoViewNetwork(**TINY))


def plane(distance: float = 1.0, seed: int = 0) -> RgbdFrame:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return RgbdFrame(rgb, np.full((HEIGHT, WIDTH), distance, np.float32), intrinsics(50, WIDTH, HEIGHT), stamp=7)


def observation(views: int = 2) -> Observation:
    return Observation(tuple(plane(seed=i) for i in range(views)), make_transform(t=np.array([0, 0, 0.9])), 0.05)


def test_given_poses_place_the_second_view_and_nobody_else_reads_them(predictor):
    seen = observation()
    told = replace(seen, T_ref_view=np.stack([np.eye(4), make_transform(t=np.array([0.1, 0, 0]))]))
    told_network = TwoViewPredictor(TwoViewNetwork(**TINY, given_poses=True))
    np.testing.assert_array_equal(told_network.predict(told).T_ref_view, told.T_ref_view)
    with pytest.raises(InvalidInputError, match='T_ref_view'):
        told_network.predict(seen)
    np.testing.assert_array_equal(predictor.predict(told).points, predictor.predict(seen).points)


def guide_inputs(T_g0_g: np.ndarray, opening: float = 0.08):
    """A square hand on a plane, seen by one camera."""
    frame, K = plane(0.8), intrinsics(50, WIDTH, HEIGHT)
    T_g0_view = make_transform(t=np.array([0, 0, -0.8]))
    points = transform_points(T_g0_view, unproject(frame.depth, K))
    segments = np.zeros((HEIGHT, WIDTH), np.int64)
    segments[12:18, 20:28] = HAND
    single = lambda a: torch.as_tensor(np.asarray(a))[None, None].float()  # noqa: E731
    return dict(points=single(points), rgb=single(frame.rgb.transpose(2, 0, 1)) / 255, segments=single(segments).long(),
                T_view_g0=single(invert(T_g0_view)), K=single(K), T_g0_g=single(T_g0_g),
                opening0=torch.tensor([0.08]), opening=torch.tensor([[opening]]))


def test_a_hand_that_stays_is_seen_where_it_was():
    inputs = guide_inputs(np.eye(4))
    guide = body_guide(**inputs)[0, 0, 0]
    mask = inputs['segments'][0, 0] == HAND
    assert bool((guide[4][mask] == 1).all())
    torch.testing.assert_close(guide[3][mask], torch.full_like(guide[3][mask], 0.8))


def test_a_hand_that_moves_one_pixel_width_shifts_by_it():
    step = 5 * 0.8 / 50  # five pixels at this depth
    guide = body_guide(**guide_inputs(make_transform(t=np.array([step, 0, 0]))))[0, 0, 0, 4]
    assert guide[13:17, 26:32].min() == 1
    assert guide[:, :24].max() == 0


def test_fingers_slide_with_the_opening_and_the_palm_does_not():
    inputs = guide_inputs(np.eye(4), opening=0.0)
    still = body_guide(**inputs)[0, 0, 0, 4]
    inputs['segments'] = torch.where(inputs['segments'] == HAND, FINGER, 0)
    slid = body_guide(**inputs)[0, 0, 0, 4]
    assert not torch.equal(still, slid)


def test_the_arm_moves_with_its_bones_and_what_it_left_is_told():
    inputs = guide_inputs(np.eye(4))
    inputs['segments'] = torch.where(inputs['segments'] == HAND, ARM, 0)
    arm0 = torch.tensor([[[0.0, -0.3, 0], [0.0, 0.1, 0], [0, 0.3, 0]]])
    step = 5 * 0.8 / 50  # five pixels
    unmoved, moved = (body_guide(**inputs, arm0=arm0, arm=arm0[:, None] + torch.tensor([x, 0, 0]))[0, 0, 0]
                      for x in (0.0, step))
    was = inputs['segments'][0, 0] == ARM
    assert bool((unmoved[5][was] == 1).all()) and unmoved[4].max() == 0 and unmoved[6].max() == 0
    assert moved[5, 13:17, 26:32].min() == 1 and moved[5, :, :24].max() == 0
    assert moved[6, 12:18, 20:24].min() == 1 and (moved[6] * moved[5]).max() == 0
    assert body_guide(**inputs).max() == 0, 'an arm whose joints are not known stays out'


def test_a_views_own_pixels_come_before_another_views_within_the_registration_error():
    frame, K = plane(0.8), intrinsics(50, WIDTH, HEIGHT)
    tensor = lambda a: torch.as_tensor(np.asarray(a))[None].float()  # noqa: E731
    for lift, own in ((0.01, True), (0.1, False)):
        T_g0_view = np.stack([make_transform(t=np.array([0, 0, z])) for z in (-0.8, -0.8 - lift)])
        points = np.stack([transform_points(T, unproject(frame.depth, K)) for T in T_g0_view])
        segments = torch.full((1, 2, HEIGHT, WIDTH), HAND)
        rgb = torch.stack([torch.zeros(3, HEIGHT, WIDTH), torch.ones(3, HEIGHT, WIDTH)])[None]
        guide = body_guide(tensor(points), rgb, segments, tensor(invert(np.stack([T_g0_view[0]] * 2))),
                           tensor(np.stack([K, K])), tensor(np.eye(4))[None], torch.tensor([0.08]),
                           torch.tensor([[0.08]]))
        assert bool(guide[0, 0, 0, 0, 10:20, 10:20].max() == 0) == own, 'view 1 stands nearer by `lift`'


def test_the_nearer_point_wins():
    points = torch.tensor([[[0.0, 0, 2.0], [0.0, 0, 1.0]]])
    colours = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
    K = torch.tensor(intrinsics(50, WIDTH, HEIGHT))[None].float()
    image, depth, mask = splat(points, colours, torch.ones(1, 2, dtype=torch.bool), K, HEIGHT, WIDTH)
    seen = mask[0, 0] > 0
    assert set(depth[0, 0][seen].tolist()) == {1.0}
    assert image[0, 0][seen].max() == 0 and image[0, 1][seen].min() == 1


def test_the_plate_shows_only_what_other_views_see_of_the_resting_scene():
    frame, K = plane(0.8), intrinsics(50, WIDTH, HEIGHT)
    T_g0_view = np.stack([np.eye(4), make_transform(t=np.array([5 * 0.8 / 50, 0, 0]))])  # five pixels to the right
    points = np.stack([transform_points(T, unproject(frame.depth, K)) for T in T_g0_view])
    tensor = lambda a: torch.as_tensor(np.asarray(a))[None].float()  # noqa: E731
    rgb = torch.stack([torch.zeros(3, HEIGHT, WIDTH), torch.ones(3, HEIGHT, WIDTH)])[None]
    rest = torch.ones(1, 2, HEIGHT, WIDTH, dtype=torch.bool)
    rest[0, 1, 10:20, 10:20] = False
    plate = background_plate(tensor(points), rgb, rest, tensor(invert(T_g0_view)), tensor(np.stack([K, K])))[0]
    covered = plate[0, 4] > 0
    assert not covered[:, :5].any(), 'the second view does not look there'
    assert not covered[11:19, 16:24].any(), 'what moves in the second view is no background'
    assert covered[:10, 6:].all()
    assert plate[0, :3, covered].min() == 1 and plate[1, :3].max() == 0, 'colours come from the other view'
    torch.testing.assert_close(plate[0, 3][covered], torch.full_like(plate[0, 3][covered], 0.8))


def test_rays_pass_through_the_pointmap():
    frame, K = plane(0.8), intrinsics(50, WIDTH, HEIGHT)
    T = from_rotvec(np.array([0.3, -0.2, 0.5]), np.array([0.1, 0.2, -0.3]))
    points = transform_points(T, unproject(frame.depth, K))[2::4, 2::4]
    tensor = lambda a: torch.as_tensor(a)[None, None]  # noqa: E731
    rays = pixel_rays(tensor(T), tensor(K), HEIGHT, WIDTH, 4)[0, 0].numpy()
    expected = points - T[:3, 3]
    np.testing.assert_allclose(rays, expected / np.linalg.norm(expected, axis=-1, keepdims=True), atol=1e-6)


def test_prediction_keeps_the_observation_at_frame_0(predictor):
    video = predictor.predict(observation())
    assert video.rgb.shape == (2, 11, HEIGHT, WIDTH, 3)
    assert np.abs(video.rgb[0, 0].astype(int) - observation().views[0].rgb).max() <= 1
    np.testing.assert_allclose(video.depth(0, 0), 1.0, atol=1e-5)
    np.testing.assert_allclose(video.depth(1, 0), 1.0, atol=1e-5)
    assert video.stamps[0] == 7 and video.stamps[1] == 7 + 500_000_000
    assert len(video.state) == 11


def test_prediction_is_deterministic(predictor):
    a, b = (predictor.predict(observation(), seed=s) for s in (0, 1))
    np.testing.assert_array_equal(a.points, b.points)


def fixed_registration(monkeypatch):
    monkeypatch.setattr(predictor_module, 'register_views',
                        lambda a, b: type('R', (), {'T_ref_second': make_transform(t=np.array([0.1, 0, 0]))}))


@pytest.mark.parametrize('cross_view', [False, True])
def test_only_with_cross_view_attention_the_reference_depends_on_the_other_view(monkeypatch, cross_view):
    fixed_registration(monkeypatch)
    torch.manual_seed(0)
    predictor = TwoViewPredictor(TwoViewNetwork(**TINY, cross_view=cross_view))
    changed = Observation((plane(seed=0), plane(seed=9)), observation().T_ref_gripper, 0.05)
    a, b = predictor.predict(observation()), predictor.predict(changed)
    assert np.array_equal(a.gripper_mask[0], b.gripper_mask[0]) != cross_view
    assert np.array_equal(a.state.T_ref_gripper, b.state.T_ref_gripper) != cross_view
    assert not np.array_equal(a.rgb[1], b.rgb[1])


def test_a_direct_policy_repeats_frame_0_and_moves_the_gripper(monkeypatch):
    fixed_registration(monkeypatch)
    torch.manual_seed(0)
    video = TwoViewPredictor(TwoViewNetwork(**TINY, video=False)).predict(observation())
    assert np.array_equal(video.rgb, np.repeat(video.rgb[:, :1], video.frames, 1))
    assert not np.array_equal(video.state.T_ref_gripper[1], video.state.T_ref_gripper[-1])


def test_an_unregistered_second_view_is_invalid_and_changes_nothing_else(predictor, monkeypatch):
    def fail(a, b):
        raise RegistrationError('ambiguous')
    monkeypatch.setattr(predictor_module, 'register_views', fail)
    both, alone = predictor.predict(observation(2)), predictor.predict(observation(1))
    assert not both.valid[1].any()
    assert alone.views == 1
    np.testing.assert_allclose(both.state.T_ref_gripper, alone.state.T_ref_gripper, atol=1e-5)


def test_the_hand_has_the_depth_of_the_moved_hand_up_to_a_pixel_beyond_its_rim():
    shape = (1, 1, 1, 1, 5, 5)
    painted, moved_depth, moved_mask = torch.full(shape, 0.9), torch.zeros(shape), torch.zeros(shape)
    moved_depth[..., 2, 1:3], moved_mask[..., 2, 1:3] = torch.tensor([0.5, 0.6]), 1.0
    motion = torch.tensor([-9.0, 9.0, -9.0]).view(1, 1, 1, 3, 1, 1).repeat(1, 1, 1, 1, 5, 5)  # hand everywhere
    motion[..., 1, 2] = torch.tensor([-9.0, -9.0, 9.0])  # but for one pixel at the rim
    still = {'rgb0': torch.zeros(1, 1, 3, 5, 5), 'depth0': torch.ones(1, 1, 1, 5, 5)}
    out = {'motion': motion, 'rgb': torch.zeros(1, 1, 1, 3, 5, 5), 'depth': painted,
           'moved_hand': torch.cat([moved_depth, moved_mask], 3)}
    depth = predictor_module.compose(out, still, torch.zeros(1, 1, 5, 5))[1][0, 1]
    np.testing.assert_allclose(depth[2], [0.5, 0.5, 0.6, 0.6, 0.9], atol=1e-6)
    np.testing.assert_allclose(depth[1], [0.5, 0.55, 0.9, 0.6, 0.9], atol=1e-6)  # no hand in the middle
    np.testing.assert_allclose(depth[0], 0.9, atol=1e-6)


def test_robot_state_is_required(predictor):
    with pytest.raises(InvalidInputError, match='gripper pose'):
        predictor.predict(Observation((plane(),)))


def test_a_model_that_moves_the_arm_needs_its_joints(monkeypatch):
    fixed_registration(monkeypatch)
    predictor = TwoViewPredictor(TwoViewNetwork(**TINY, arm_joints=3))
    arm = np.array([[0, -0.5, 1.0], [0, -0.2, 0.9], [0, 0, 0.8]])
    assert len(predictor.predict(replace(observation(), arm_points=arm)).state) == 11
    for wrong in (None, arm[:2]):
        with pytest.raises(InvalidInputError, match='arm_points of 3'):
            predictor.predict(replace(observation(), arm_points=wrong))


def test_weights_survive_saving(predictor, tmp_path):
    from geo4d_ros.generation.loading import load_generator

    predictor.save_pretrained(tmp_path / 'model')
    loaded = load_generator(tmp_path / 'model')
    a, b = predictor.predict(observation()), loaded.predict(observation())
    np.testing.assert_allclose(a.state.T_ref_gripper, b.state.T_ref_gripper, atol=2e-2)  # half precision


def test_poses_stay_rigid(predictor):
    track = predictor.predict(Observation(observation().views, from_rotvec(np.array([0.4, 2.0, -0.3]),
                                                                          np.array([0.0, 0.1, 0.8])), 0.08)).state
    R = track.T_ref_gripper[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (11, 1, 1)), atol=1e-9)


def test_successive_elements_share_a_context_as_if_it_were_repeated():
    attention = Attention(24, 3)
    x, context = torch.randn(6, 5, 24), torch.randn(2, 7, 24)
    with torch.no_grad():
        assert torch.allclose(attention(x, context), attention(x, context.repeat_interleave(3, 0)), atol=1e-6)
