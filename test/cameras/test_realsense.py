"""RealSense cameras through librealsense's software device: alignment, units, dropped and frozen frames, unplugging."""

import time

import numpy as np
import pytest

try:
    import pyrealsense2 as rs
except ImportError as error:
    pytest.skip(f'pyrealsense2 cannot be imported ({error}): make setup, or apt-get install libusb-1.0-0',
                allow_module_level=True)

from fakes.software_realsense import Showing, SoftwareRealSense

from geo4d_ros.cameras.protocol import Camera, CameraError, RecordingEnded, observe
from geo4d_ros.cameras.realsense import RealSenseCamera, RealSenseSettings, library, list_realsense
from geo4d_ros.errors import ConfigurationError
from geo4d_ros.reasons import Reason

W, H = SoftwareRealSense.SIZE[1], SoftwareRealSense.SIZE[0]
SETTINGS = RealSenseSettings(W, H, 30)
SECONDS = 20.0


def test_frames_are_aligned_in_metres_with_intrinsics_and_stamp():
    source = SoftwareRealSense(unit=0.0001)
    camera = RealSenseCamera(source.device, 'one', SETTINGS)
    assert isinstance(camera, Camera)
    with Showing(source, counts=7000):
        frame = camera.read(SECONDS)
    camera.close()
    assert frame.rgb.shape == (H, W, 3) and frame.depth.dtype == np.float32
    seen = frame.depth[frame.depth > 0]  # alignment leaves holes of a pixel
    assert len(seen) > frame.depth.size / 2 and np.allclose(seen, 0.7, atol=1e-6)
    assert camera.depth_unit == pytest.approx(1e-4)
    assert np.allclose(frame.K, [[60, 0, W / 2], [0, 60, H / 2], [0, 0, 1]]) and frame.stamp > 0


def test_filters_keep_the_depth_of_a_wall():
    source = SoftwareRealSense()
    camera = RealSenseCamera(source.device, 'one', RealSenseSettings(W, H, 30, spatial=True, temporal=True))
    with Showing(source):
        frame = camera.read(SECONDS)
    camera.close()
    assert np.median(frame.depth[frame.depth > 0]) == pytest.approx(1.0, abs=0.01)


def test_dropped_frames_are_counted_and_named():
    source = SoftwareRealSense()
    camera = RealSenseCamera(source.device, 'one', SETTINGS)
    with Showing(source, [1, 2, 10, 11], period=0.1):
        seen = [camera.read(SECONDS).stamp for _ in range(3)]
    camera.close()
    assert seen == sorted(seen) and camera.watch.dropped >= 7
    assert any('dropped before frame' in remark for remark in camera.watch.remarks)


def test_unplugging_is_a_silent_camera():
    source = SoftwareRealSense()
    camera = RealSenseCamera(source.device, 'one', SETTINGS)
    with Showing(source):
        camera.read(SECONDS)
    source.depth.stop()
    source.colour.stop()
    with pytest.raises(CameraError, match='one') as caught:
        while True:  # what is still queued may come
            camera.read(0.3)
    assert caught.value.reason is Reason.CAMERA_SILENT
    camera.close()
    camera.close()


def test_a_profile_that_is_not_there_is_one_line():
    with pytest.raises(ConfigurationError, match='no depth and colour of 640x480'):
        RealSenseCamera(SoftwareRealSense().device, 'one', RealSenseSettings(640, 480))
    with pytest.raises(ConfigurationError, match='sync should be'):
        RealSenseSettings(sync='both')


def test_a_lens_that_bends_too_much_is_refused():
    source = SoftwareRealSense(distortion=0.5)
    camera = RealSenseCamera(source.device, 'one', SETTINGS)
    with Showing(source), pytest.raises(CameraError, match='lens') as caught:
        camera.read(SECONDS)
    camera.close()
    assert caught.value.reason is Reason.OBSERVATION_INVALID


def test_no_camera_of_this_number():
    assert all(camera.serial for camera in list_realsense())
    with pytest.raises(ConfigurationError, match='no RealSense camera 000'):
        RealSenseCamera.by_serial('000')


def test_what_librealsense_records_plays_back_as_the_same_frames(tmp_path):
    source, path = SoftwareRealSense(), tmp_path / 'look.db3'
    recorder = library().recorder(str(path), source.device)
    sensors = recorder.query_sensors()
    syncer = rs.syncer(10)
    for sensor, profile in zip(sensors, (source.depth_profile, source.colour_profile), strict=True):
        sensor.open(profile)
        sensor.start(syncer)
    for number in range(1, 8):
        source.show(number, counts=1000 + number, grey=10 * number)
        time.sleep(0.03)
    for sensor in sensors:
        sensor.stop()
        sensor.close()
    del sensors, sensor, recorder
    camera = RealSenseCamera.from_file(path)
    frames = []
    with pytest.raises(RecordingEnded):
        while True:
            frames.append(camera.read(2.0))
    camera.close()
    assert len(frames) >= 4
    for frame in frames:
        number = frame.rgb[H // 2, W // 2, 0] // 10
        assert (frame.rgb == 10 * number).all()
        assert np.allclose(frame.depth[frame.depth > 0], 1.0 + number / 1000, atol=1e-6)
    with pytest.raises(ConfigurationError, match='does not exist'):
        RealSenseCamera.from_file(tmp_path / 'none.db3')


def test_two_cameras_make_one_observation():
    sources = SoftwareRealSense(), SoftwareRealSense()
    cameras = [RealSenseCamera(source.device, name, SETTINGS) for source, name in zip(sources, 'ab', strict=True)]
    with Showing(sources[0]), Showing(sources[1]):
        observation = observe(cameras, SECONDS, slop=10.0)
    for camera in cameras:
        camera.close()
    assert len(observation.views) == 2 and observation.views[1].frame_id == 'b_color_optical_frame'
