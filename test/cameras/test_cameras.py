"""Cameras without hardware: looks of several, what is wrong with frames by name, record and play back, commands."""

import json
from dataclasses import replace

import numpy as np
import pytest

from geo4d_ros.cameras.protocol import Camera, CameraError, FrameWatch, RecordingEnded, observe
from geo4d_ros.cameras.recording import FolderCamera, FolderWriter
from geo4d_ros.cameras.sources import open_cameras
from geo4d_ros.cli.main import main
from geo4d_ros.errors import ConfigurationError, DatasetError, InvalidInputError
from geo4d_ros.reasons import Reason
from geo4d_ros.types import RgbdFrame


class Listed:
    """A camera that shows what it is given."""

    depth_unit = 0.001

    def __init__(self, frames, name='listed'):
        self.name, self._frames = name, list(frames)

    def read(self, timeout=2.0):
        if not self._frames:
            raise CameraError(Reason.CAMERA_SILENT, self.name)
        return self._frames.pop(0)

    def close(self):
        return None


def frame(milliseconds, seed=0):
    counts = np.random.default_rng(seed).integers(0, 2000, (12, 16))
    return replace(RgbdFrame.example(12, 16, seed), depth=(counts * 0.001).astype(np.float32),
                   stamp=1_700_000_000_000_000_000 + milliseconds * 1_000_000 + 7)


def test_a_late_camera_is_read_again_until_the_stamps_agree():
    first, second = Listed([frame(100)]), Listed([frame(0), frame(33), frame(67), frame(100)])
    assert isinstance(first, Camera)
    views = observe([first, second], slop=0.01).views
    assert views[0].stamp == views[1].stamp


def test_cameras_that_never_agree_are_named():
    fast, slow = Listed([frame(10_000)]), Listed([frame(i) for i in range(99)], 'slow')
    with pytest.raises(CameraError, match='slow stays') as caught:
        observe([fast, slow])
    assert caught.value.reason is Reason.OBSERVATION_SKEWED


def test_a_stale_look_is_named():
    with pytest.raises(CameraError, match=r'OBSERVATION_STALE: .*2\.00 s old') as caught:
        observe([Listed([frame(0)])], max_age=1.0, now=frame(2000).stamp)
    assert caught.value.reason is Reason.OBSERVATION_STALE
    assert observe([Listed([frame(0)])], max_age=1.0, now=frame(500).stamp)


def test_dropped_frozen_and_backward_frames_have_names():
    watch = FrameWatch('left')
    watch.check(1, 0)
    watch.check(2, 33)
    watch.check(6, 167)
    assert (watch.dropped, watch.read) == (3, 3) and watch.remarks == ['3 frames dropped before frame 6']
    with pytest.raises(CameraError) as caught:
        watch.check(6, 167)
    assert caught.value.reason is Reason.OBSERVATION_FROZEN and watch.frozen == 1
    with pytest.raises(CameraError) as caught:
        watch.check(7, 100)
    assert caught.value.reason is Reason.CLOCK_JUMP


def test_what_is_recorded_plays_back_equal(tmp_path):
    frames = [frame(33 * i, i) for i in range(4)]
    writer = FolderWriter(tmp_path, Listed([], 'left'))
    for one in frames:
        writer.write(one)
    writer.close()
    camera = FolderCamera(tmp_path / 'left')
    for one in frames:
        back = camera.read()
        assert np.array_equal(back.rgb, one.rgb) and np.array_equal(back.depth, one.depth)
        assert np.array_equal(back.K, one.K) and (back.stamp, back.frame_id) == (one.stamp, one.frame_id)
    with pytest.raises(RecordingEnded):
        camera.read()
    with pytest.raises(ConfigurationError, match='exists'):
        FolderWriter(tmp_path, Listed([], 'left'))


def test_recording_refuses_intrinsics_that_change(tmp_path):
    writer = FolderWriter(tmp_path, Listed([], 'left'))
    writer.write(frame(0))
    with pytest.raises(InvalidInputError, match='intrinsics'):
        writer.write(replace(frame(33), K=frame(0).K + np.diag([1.0, 1.0, 0])))
    writer.close()


@pytest.mark.parametrize('harm', [
    lambda d: (d / 'camera.json').write_text('{'), lambda d: (d / 'camera.json').write_text('{"K": 3}'),
    lambda d: (d / 'times.csv').unlink(), lambda d: (d / 'times.csv').write_text('name,time\n000000,soon\n'),
    lambda d: (d / 'depth' / '000000.png').write_bytes(b'x')])
def test_a_damaged_folder_is_named(tmp_path, harm):
    writer = FolderWriter(tmp_path, Listed([], 'left'))
    writer.write(frame(0))
    writer.close()
    harm(tmp_path / 'left')
    with pytest.raises(DatasetError, match='left'):
        FolderCamera(tmp_path / 'left').read()


@pytest.mark.parametrize('name, message', [
    ('realsense:', 'SERIAL'), ('nowhere', 'no camera'), ('sim:juggling', 'juggling')])
def test_unknown_cameras_are_one_line(name, message, capsys):
    assert main(['cameras', 'show', name]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_commands_record_the_simulated_rig_and_show_the_recording(tmp_path, capsys):
    folder, report = tmp_path / 'look', tmp_path / 'r.json'
    assert main(['cameras', 'record', 'sim', '--frames', '2', '--out', str(folder)]) == 0
    assert main(['cameras', 'show', str(folder), '--out', str(tmp_path / 'p.png'), '--json', str(report)]) == 0
    assert '2 looks of 2 cameras' in capsys.readouterr().out
    seen = json.loads(report.read_text())
    assert seen['looks'] == 2 and [c['size'] for c in seen['cameras']] == [[480, 640]] * 2
    assert all(c['valid_depth'] > 0.3 and c['skew_ms_max'] == 0 for c in seen['cameras'])
    assert (tmp_path / 'p.png').stat().st_size > 10_000
    cameras = open_cameras([str(folder)])
    assert cameras[0].read().stamp == cameras[1].read().stamp
