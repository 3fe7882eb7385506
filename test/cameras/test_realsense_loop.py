"""From two RealSense devices of software, which see the simulated cell, to a prediction, a plan and a closed loop."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('pyrealsense2', exc_type=ImportError, reason='needs pyrealsense2: make setup')

from fakes.software_realsense import SoftwareRealSense

from geo4d_ros.cameras.protocol import observe
from geo4d_ros.cameras.realsense import RealSenseCamera, RealSenseSettings
from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras
from geo4d_ros.evaluation.closed_loop.episode import LoopSetup, run_loop
from geo4d_ros.generation.loading import open_generator
from geo4d_ros.resources import share_directory
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.tracking.factory import create_tracker
from geo4d_ros.types import Plan

SHIPPED = share_directory() / 'models' / 'geo4d-sim-small'
SIZE = 240, 320
SEED = 500_000
FRAMES, PERIOD_MS = 5, 33.3  # shown per look: librealsense keeps the newest until it knows what follows
pytestmark = pytest.mark.skipif(not SHIPPED.is_dir(), reason='no shipped weights in this checkout')


class RealSenseRig:
    """Looks at a cell through librealsense: what is rendered is shown to two devices and read by `RealSenseCamera`."""

    def __init__(self, rendered):
        self._rendered, self.cameras, self._number = rendered, rendered.cameras, 0
        self._devices = [SoftwareRealSense(K=camera.K, size=SIZE) for camera in rendered.cameras]
        self._read = [RealSenseCamera(device.device, f'camera{i + 1}', RealSenseSettings(SIZE[1], SIZE[0], 30))
                      for i, device in enumerate(self._devices)]

    def observe(self, cell):
        """The cameras' pictures, the robot's state, and the cell's time as that of the computer."""
        truth, first = self._rendered.observe(cell), (self._number + 1) * PERIOD_MS
        for _ in range(FRAMES):
            self._number += 1
            for device, view in zip(self._devices, truth.views, strict=True):
                device.show(self._number, np.rint(view.depth * 1000), view.rgb, self._number * PERIOD_MS)
        views = observe(self._read, timeout=20.0).views
        while min(view.stamp for view in views) < first * 1e6:
            views = observe(self._read, timeout=20.0).views
        return replace(truth, views=tuple(replace(view, stamp=truth.views[0].stamp) for view in views))

    def close(self):
        for camera in self._read:
            camera.close()


@pytest.fixture(scope='module')
def parts():
    """The shipped model, the default tracker, and a cell as it begins."""
    return open_generator(str(SHIPPED)), create_tracker(), Cell('apple', SEED)


@pytest.fixture
def rigs(parts):
    with CellRig(parts[2].model, episode_cameras(SEED, 'held-out', SIZE), labels=False) as rendered:
        rig = RealSenseRig(rendered)
        yield rendered, rig
        rig.close()


def test_two_devices_give_the_plan_that_the_pictures_themselves_give(parts, rigs):
    generator, tracker, cell = parts
    rendered, rig = rigs
    truth, seen = rendered.observe(cell), rig.observe(cell)
    plans = []
    for look, shown in zip(seen.views, truth.views, strict=True):
        np.testing.assert_array_equal(look.rgb, shown.rgb)
        np.testing.assert_allclose(look.K, shown.K, rtol=1e-6)
        both = (look.depth > 0) & (shown.depth > 0)
        assert both.mean() > 0.85 * (shown.depth > 0).mean()  # alignment leaves holes of a pixel
        assert np.quantile(np.abs(look.depth - shown.depth)[both], 0.95) < 0.002
    for observation in (seen, truth):
        video = generator.predict(observation, seed=0)
        assert video.views == 2 and video.frames == 11
        track = tracker.track(video, observation)
        assert track.trusted > 5
        plans.append(Plan.of_track(track, rig.cameras[0].T_base_camera, video.stamps, 'plan'))
    n = min(len(plan.opening) for plan in plans)
    apart = np.linalg.norm(plans[0].T_base_gripper[:n, :3, 3] - plans[1].T_base_gripper[:n, :3, 3], axis=-1)
    assert apart.max() < 0.02


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_loop_closes_through_two_devices(parts, rigs):
    generator, tracker, cell = parts
    result = run_loop(cell, rigs[1], LoopSetup(generator, tracker, RobotModel.of(load_robot()), seed=SEED))
    assert result.success, result.reason
