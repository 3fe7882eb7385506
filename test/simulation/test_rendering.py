"""Rendered depth against ray casting, off-centre intrinsics, labels, and the life of GL contexts."""

import mujoco
import numpy as np
import pytest

from geo4d_ros.errors import InvalidInputError, SimulationError
from geo4d_ros.geometry.cameras import Camera, intrinsics, look_at, project, unproject
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.simulation.rendering import LABELS, RgbdRenderer

SCENE = """
<mujoco><worldbody>
  <light pos="0 0 3"/>
  <geom name="table" type="plane" size="2 2 .1"/>
  <body user="1" name="panda_link3" pos=".3 -.1 .2"><geom type="capsule" size=".05 .15"/>
    <body user="2" name="panda_hand" pos=".1 0 .2"><geom type="box" size=".04 .1 .03"/>
      <body user="3" name="panda_leftfinger" pos="0 .04 -.06"><geom type="box" size=".01 .01 .03"/></body>
      <body user="4" name="panda_rightfinger" pos="0 -.04 -.06"><geom type="box" size=".01 .01 .03"/></body>
    </body></body>
  <body name="object_apple" pos=".5 .1 .04"><geom type="sphere" size=".04"/></body>
  <body name="fixture_bin" pos=".6 -.2 .05"><geom type="box" size=".08 .06 .05"/></body>
</worldbody></mujoco>"""


@pytest.fixture(scope='module')
def scene():
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def camera(width=128, height=96, shift=0.0):
    K = intrinsics(1.05 * width, width, height)
    K[0, 2] += shift
    K[1, 2] -= shift / 2
    return Camera(K, look_at(np.array([1.2, 0.6, 0.7]), np.array([0.45, 0, 0.1])), width, height)


def cast_depth(model, data, cam):
    """Depth by mj_ray through every pixel centre, 0 where nothing is hit."""
    rays = unproject(np.ones((cam.height, cam.width), np.float32), cam.K).astype(float)
    R, origin = cam.T_base_camera[:3, :3], cam.T_base_camera[:3, 3]
    depth = np.zeros((cam.height, cam.width))
    for i, row in enumerate(rays):
        for j, ray in enumerate(row):
            length = np.linalg.norm(ray)
            geom = np.zeros(1, np.int32)
            hit = mujoco.mj_ray(model, data, origin, R @ ray / length, None, 1, -1, geom, None)
            depth[i, j] = hit / length if hit > 0 else 0
    return depth


@pytest.mark.parametrize('shift', [0.0, 7.3])
def test_depth_agrees_with_ray_casting(scene, shift):
    cam = camera(64, 48, shift)
    with RgbdRenderer(scene[0], 48, 64) as renderer:
        _, depth, _ = renderer.render(scene[1], cam)
    truth = cast_depth(*scene, cam)
    error = np.abs(depth - truth)[(truth > 0) & (truth < 3)]
    assert np.median(error) < 1e-3
    assert np.mean(error > 5e-3) < 0.02


def test_lifted_table_pixels_lie_on_the_table(scene):
    cam = camera()
    with RgbdRenderer(scene[0], 96, 128) as renderer:
        _, depth, labels = renderer.render(scene[1], cam, labels=True)
    points = transform_points(cam.T_base_camera, unproject(depth, cam.K))
    on_table = (labels == 0) & (depth > 0) & (depth < 2)
    assert np.abs(points[on_table][:, 2]).max() < 2e-3


def test_labels_are_where_the_bodies_are(scene):
    cam = camera()
    with RgbdRenderer(scene[0], 96, 128) as renderer:
        _, depth, labels = renderer.render(scene[1], cam, labels=True)
        assert renderer.render(scene[1], cam)[2] is None
    assert set(np.unique(labels)) == set(LABELS.values())
    for body, label in (('object_apple', 'object'), ('panda_hand', 'hand'), ('fixture_bin', 'fixture')):
        world = scene[1].body(body).xpos
        T = cam.T_base_camera
        (u, v), z = project((world - T[:3, 3]) @ T[:3, :3], cam.K)
        pixel = round(float(v)), round(float(u))
        assert labels[pixel] == LABELS[label]
        assert z - 0.15 < depth[pixel] < z


def test_renderers_do_not_disturb_each_other(scene):
    """Contexts made, used in turn and freed in any order give the same picture."""
    cam = camera()
    first = RgbdRenderer(scene[0], 96, 128)
    expected = first.render(scene[1], cam)
    for size in ((96, 128), (48, 64), (120, 160)):
        other = RgbdRenderer(scene[0], *size)
        other.render(scene[1], camera(size[1], size[0]))
        again = first.render(scene[1], cam)
        assert np.array_equal(again[0], expected[0]) and np.array_equal(again[1], expected[1])
        other.close()
        other.close()
    again = first.render(scene[1], cam)
    assert np.array_equal(again[1], expected[1])
    first.close()
    with pytest.raises(SimulationError, match='closed'):
        first.render(scene[1], cam)


def test_wrong_size_is_refused_and_model_is_untouched(scene):
    before = scene[0].vis.quality.offsamples, scene[0].vis.global_.offwidth
    with RgbdRenderer(scene[0], 96, 128) as renderer, pytest.raises(InvalidInputError, match='96x128'):
        renderer.render(scene[1], camera(64, 48))
    assert before == (scene[0].vis.quality.offsamples, scene[0].vis.global_.offwidth)
