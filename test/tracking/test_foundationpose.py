"""The real worker process against a fake source tree with the documented traps."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes.gripper_scene import gripper_scene

from geo4d_ros.errors import BackendUnavailableError
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.tracking.backends import foundationpose_worker as wire
from geo4d_ros.tracking.backends.external import ExternalTracker, PoseBackendFault
from geo4d_ros.tracking.backends.foundationpose import (
    WEIGHT_FILES,
    FoundationPoseClient,
    FoundationPoseOptions,
    preflight,
)
from geo4d_ros.types import RgbdFrame, TrackStatus

FAKE = Path(__file__).parents[1] / 'fakes' / 'fp_root'


def options(root=FAKE, **more):
    return FoundationPoseOptions(str(root), sys.executable, **{'deadline_s': 20.0, 'start_s': 200.0, **more})


@pytest.fixture
def root(tmp_path):
    shutil.copytree(FAKE, tmp_path / 'fp')
    return tmp_path / 'fp'


@pytest.mark.parametrize('missing', ['estimater.py', *WEIGHT_FILES])
def test_preflight_names_each_missing_file(root, missing):
    (root / missing).unlink()
    with pytest.raises(BackendUnavailableError, match=Path(missing).name):
        preflight(options(root), gripper_of())


def test_failures_at_start_name_the_cause(root, monkeypatch):
    with pytest.raises(BackendUnavailableError, match='does not start'):
        FoundationPoseClient(FoundationPoseOptions(str(root), '/nowhere/python'), gripper_of()).begin(0.08)
    monkeypatch.setenv('FAKE_FP_CUDA', '0')
    with pytest.raises(BackendUnavailableError, match='CUDA GPU'):
        FoundationPoseClient(options(root), gripper_of()).begin(0.08)
    monkeypatch.delenv('FAKE_FP_CUDA')
    shutil.rmtree(root / 'nvdiffrast')
    with pytest.raises(BackendUnavailableError, match='nvdiffrast'):
        FoundationPoseClient(options(root), gripper_of()).begin(0.08)


def test_frames_follow_from_the_seeded_pose_and_views_do_not_mix():
    client = FoundationPoseClient(options(), gripper_of())
    try:
        client.begin(0.08)
        T = np.eye(4)
        T[:3, 3] = 0.1, 0.0, 0.8
        other = T.copy()
        other[2, 3] = 0.5
        rgb, depth, K = np.zeros((24, 32, 3), np.uint8), np.ones((24, 32), np.float32), np.eye(3)
        frame, none = RgbdFrame(rgb, depth, K), np.zeros((24, 32), bool)
        client.start(0, T, frame, none)
        client.start(1, other, frame, none)
        first, second, far = client.step(0, rgb, depth, K), client.step(0, rgb, depth, K), client.step(1, rgb, depth, K)
        np.testing.assert_allclose(first[:3, 3], [0.11, 0, 0.8], atol=1e-6)
        np.testing.assert_allclose(second[:3, 3], [0.12, 0, 0.8], atol=1e-6)
        np.testing.assert_allclose(far[:3, 3], [0.11, 0, 0.5], atol=1e-6)
        with pytest.raises(PoseBackendFault, match='fewer than 4 pixels'):
            client.register(0, rgb, depth, np.zeros((24, 32), bool), K)
        mask = np.zeros((24, 32), bool)
        mask[10:14, 10:14] = True
        assert client.register(0, rgb, depth, mask, K).shape == (4, 4)
    finally:
        client.close()


@pytest.mark.parametrize(('fault', 'message'), [
    ('hang', 'deadline'), ('crash', 'illegal memory access'), ('nan', 'NaN'), ('raise', 'out of memory')])
def test_faults_in_the_worker_end_the_track_and_nothing_else(fault, message, monkeypatch):
    monkeypatch.setenv('FAKE_FP_FAULT', fault)
    scene = gripper_scene(0, frames=3)
    client = FoundationPoseClient(options(deadline_s=1.5 if fault == 'hang' else 20.0), gripper_of())
    tracker = ExternalTracker('foundationpose', client, scene.gripper, scene.masks, 'video')
    try:
        track = tracker.track(scene.video, scene.observation)
        assert all(s is TrackStatus.LOST for s in track.status[1:])
        assert message in track.details['reason']
        monkeypatch.setenv('FAKE_FP_FAULT', '')
        client.begin(0.08)  # after a fault the worker starts anew where it has died
        client.start(0, np.eye(4), scene.observation.views[0], np.zeros((96, 128), bool))
    finally:
        tracker.close()


def test_confidence_is_our_own():
    """The fake moves 1 cm per frame whatever it sees: where the hand really moves otherwise the track is not OK."""
    scene = gripper_scene(1, frames=4, step_m=0.06)
    client = FoundationPoseClient(options(), gripper_of())
    tracker = ExternalTracker('foundationpose', client, scene.gripper, scene.masks, 'video')
    try:
        track = tracker.track(scene.video, scene.observation)
    finally:
        tracker.close()
    assert track.status[0] is TrackStatus.OK
    assert track.details['raw_confidence'][-1] < 0.8
    assert track.details['backend'] == 'foundationpose'


def test_poses_of_the_second_view_come_back_in_the_reference_frame():
    scene = gripper_scene(2, frames=2, step_m=0.0, step_rad=0.0, closes=False)

    class Still:
        def begin(self, opening):
            self.poses = {}

        def start(self, view, T_view_gripper, frame, mask):
            self.poses[view] = T_view_gripper

        def step(self, view, rgb, depth, K):
            return self.poses[view] if view == 1 else invert(self.poses[0])

        def register(self, *arguments):
            raise PoseBackendFault('cannot')

        def close(self):
            pass

    track = ExternalTracker('isaac', Still(), scene.gripper, scene.masks, 'video').track(scene.video, scene.observation)
    np.testing.assert_allclose(track.details['raw_T_ref_gripper'][1], scene.T_ref_gripper[1], atol=0.01)


@pytest.mark.parametrize('data', [b'', b'G4DF', b'XXXX' + b'\0' * 8, b'G4DF' + b'\xff' * 8])
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(ValueError, match=r'worker|too large'):
        wire.parse_size(data)
