"""RealSense cameras by librealsense (`pyrealsense2`, optional): live by serial number, and recordings of its tools.

The same code reads a plugged-in device, a recording and librealsense's software device, which is how it is tested.
With hardware it is untested.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.cameras.protocol import CameraError, FrameWatch, RecordingEnded
from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, require
from geo4d_ros.reasons import Reason
from geo4d_ros.types import RgbdFrame

SYNC_MODES = {'none': 0, 'master': 1, 'slave': 2}
RECORDINGS = ('.db3', '.bag')
MAX_DISTORTION_PX = 2.0


@dataclass(frozen=True)
class RealSenseSettings:
    """Profile and options; width, height [px], rate [Hz] of both streams. sync: depth trigger between cameras by cable.
    exposure [us] of depth: None is automatic. spatial, temporal: librealsense's filters on the depth before alignment.
    """

    width: int = 640
    height: int = 480
    rate: int = 30
    sync: str = 'none'
    emitter: bool = True
    exposure: float | None = None
    spatial: bool = False
    temporal: bool = False

    def __post_init__(self) -> None:
        require(self.sync in SYNC_MODES, f'sync should be one of {", ".join(SYNC_MODES)} but got {self.sync!r}',
                ConfigurationError)


@dataclass(frozen=True)
class RealSenseInfo:
    """A plugged-in camera."""

    serial: str
    model: str
    firmware: str
    usb: str


def library() -> Any:
    """pyrealsense2; BackendUnavailableError with what to install where it cannot be imported."""
    try:
        import pyrealsense2
    except ImportError as error:
        mend = 'apt-get install libusb-1.0-0' if 'libusb' in str(error) else "pip install 'geo4d_ros[realsense]'"
        raise BackendUnavailableError(f'pyrealsense2 cannot be used ({error}); {mend}') from error
    return pyrealsense2


def list_realsense() -> list[RealSenseInfo]:
    """All cameras of this machine, by serial number."""
    rs = library()
    found = []
    for device in rs.context().query_devices():
        def info(key: Any, device: Any = device) -> str:
            return device.get_info(key) if device.supports(key) else ''

        keys = rs.camera_info
        found.append(RealSenseInfo(info(keys.serial_number), info(keys.name), info(keys.firmware_version),
                                   info(keys.usb_type_descriptor)))
    return sorted(found, key=lambda camera: camera.serial)


class RealSenseCamera:
    """Implements `cameras.protocol.Camera`. Stamps are of this computer's clock where the driver offers it."""

    def __init__(self, device: Any, name: str, settings: RealSenseSettings | None = None) -> None:
        self._rs = library()
        self.name, self.settings = name, settings or RealSenseSettings()
        self.watch = FrameWatch(name)
        self.depth_unit = 0.001
        self._device = device
        self._sensors: list[Any] = []
        self._syncer = self._rs.syncer(2)
        self._align = self._rs.align(self._rs.stream.color)
        self._filters = self._make_filters()
        self._playback = device.as_playback() if device.is_playback() else None
        self._distortion: float | None = None
        self._start()

    @classmethod
    def by_serial(cls, serial: str, settings: RealSenseSettings | None = None) -> RealSenseCamera:
        """The plugged-in camera with this serial number; ConfigurationError lists those that are there."""
        rs = library()
        for device in rs.context().query_devices():
            if device.get_info(rs.camera_info.serial_number) == serial:
                return cls(device, f'realsense:{serial}', settings)
        there = ', '.join(camera.serial for camera in list_realsense()) or 'none'
        raise ConfigurationError(f'no RealSense camera {serial} is plugged in; there are: {there}')

    @classmethod
    def from_file(cls, path: Path, settings: RealSenseSettings | None = None) -> RealSenseCamera:
        """A recording of librealsense's recorder or viewer (`.db3`; versions before 2.58 wrote `.bag`)."""
        require(path.is_file(), f'recording {path} does not exist', ConfigurationError)
        try:
            device = library().context().load_device(str(path))
        except RuntimeError as error:
            raise ConfigurationError(f'{path} is no recording of librealsense ({error})') from error
        device.as_playback().set_real_time(False)
        return cls(device, path.name, settings)

    def read(self, timeout: float = 2.0) -> RgbdFrame:
        """See `Camera.read`."""
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise self._silence(timeout)
            try:
                arrived, frames = self._syncer.try_wait_for_frames(max(1, int(left * 1000)))
            except RuntimeError as error:
                raise CameraError(Reason.CAMERA_SILENT, f'{self.name}: {error}') from error
            if arrived and frames.get_depth_frame() and frames.get_color_frame():
                return self._frame(frames)

    def close(self) -> None:
        """Stop the streams; safe to call twice."""
        sensors, self._sensors = self._sensors, []
        for sensor in sensors:
            try:
                sensor.stop()
                sensor.close()
            except RuntimeError:
                continue  # unplugged: nothing is left to stop

    def _start(self) -> None:
        rs, s = self._rs, self.settings
        wanted = ((rs.stream.depth, rs.format.z16), (rs.stream.color, rs.format.rgb8))
        opened = []
        for sensor in self._device.query_sensors():
            profiles = [p for kind, form in wanted for p in [self._profile(sensor, kind, form)] if p is not None]
            if profiles:
                self._set_options(sensor)
                opened.append((sensor, profiles))
        kinds = {p.stream_type() for _, profiles in opened for p in profiles}
        require(kinds >= {kind for kind, _ in wanted}, f'{self.name} has no depth and colour of {s.width}x{s.height} '
                f'at {s.rate} Hz; `geo4d cameras list` shows what is there', ConfigurationError)
        try:
            for sensor, profiles in opened:
                sensor.open(profiles)
                self._sensors.append(sensor)
            for sensor, _ in opened:
                sensor.start(self._syncer)
        except RuntimeError as error:
            self.close()
            raise CameraError(Reason.CAMERA_SILENT, f'{self.name} cannot be started: {error}; does another program '
                              'use it?') from error

    def _profile(self, sensor: Any, kind: Any, form: Any) -> Any:
        """The sensor's profile of this kind at the wanted size and rate; any of a recording, which has but one."""
        s = self.settings
        for profile in sensor.get_stream_profiles():
            if profile.stream_type() != kind or profile.format() != form:
                continue
            video = profile.as_video_stream_profile()
            if self._playback or (video.width(), video.height(), video.fps()) == (s.width, s.height, s.rate):
                return profile
        return None

    def _set_options(self, sensor: Any) -> None:
        """Only what the sensor has, and only when live."""
        if self._playback is not None or not sensor.is_depth_sensor():
            return
        option, s = self._rs.option, self.settings
        values = {option.emitter_enabled: float(s.emitter), option.inter_cam_sync_mode: float(SYNC_MODES[s.sync]),
                  option.enable_auto_exposure: float(s.exposure is None)}
        if s.exposure is not None:
            values[option.exposure] = s.exposure
        for key, value in values.items():
            if sensor.supports(key) and not sensor.is_option_read_only(key):
                sensor.set_option(key, value)
            elif key == option.inter_cam_sync_mode and s.sync != 'none':
                raise ConfigurationError(f'{self.name} cannot synchronise with other cameras; use sync none')

    def _make_filters(self) -> list[Any]:
        rs, s = self._rs, self.settings
        if not (s.spatial or s.temporal):
            return []
        chosen = [rs.spatial_filter()] if s.spatial else []
        chosen += [rs.temporal_filter()] if s.temporal else []
        return [rs.disparity_transform(True), *chosen, rs.disparity_transform(False)]

    def _frame(self, frames: Any) -> RgbdFrame:
        for one in self._filters:
            frames = one.process(frames).as_frameset()
        unit = frames.get_depth_frame().get_units()
        frames = self._align.process(frames)
        colour, depth = frames.get_color_frame(), frames.get_depth_frame()
        if not unit > 0:
            raise CameraError(Reason.OBSERVATION_INVALID, f'{self.name} does not say the unit of its depth')
        self.depth_unit = float(np.round(unit, 9))
        stamp = self._stamp(colour)
        self.watch.check(colour.get_frame_number(), stamp)
        rgb = np.array(np.asanyarray(colour.get_data()))
        counts = np.asanyarray(depth.get_data())
        if rgb.shape[:2] != counts.shape or rgb.ndim != 3:
            raise CameraError(Reason.OBSERVATION_INVALID, f'{self.name}: colour {rgb.shape}, depth {counts.shape}')
        K = self._intrinsics(colour)
        return RgbdFrame(rgb, (counts * self.depth_unit).astype(np.float32), K, stamp,
                         f'{self.name}_color_optical_frame')

    def _stamp(self, frame: Any) -> int:
        """Nanoseconds of this computer's clock; of the device's own in recordings and where there is no other."""
        domain, kinds = frame.get_frame_timestamp_domain(), self._rs.timestamp_domain
        if domain != kinds.hardware_clock or self._playback is not None or self._device_is_software():
            return round(frame.get_timestamp() * 1e6)
        return time.time_ns()

    def _device_is_software(self) -> bool:
        return isinstance(self._device, self._rs.software_device)

    def _intrinsics(self, colour: Any) -> np.ndarray:
        """K (3, 3); refuses a lens whose distortion, which is not undone here, moves a corner by more than 2 px."""
        lens = colour.get_profile().as_video_stream_profile().get_intrinsics()
        if self._distortion is None:
            corner = [lens.width - 1.0, lens.height - 1.0]
            x, y, _ = self._rs.rs2_deproject_pixel_to_point(lens, corner, 1.0)
            straight = [x * lens.fx + lens.ppx, y * lens.fy + lens.ppy]
            self._distortion = float(np.hypot(straight[0] - corner[0], straight[1] - corner[1]))
        if self._distortion > MAX_DISTORTION_PX:
            raise CameraError(Reason.OBSERVATION_INVALID, f'{self.name}: its lens bends a corner by '
                              f'{self._distortion:.1f} px; use rectified pictures (image_rect_color of realsense-ros)')
        return np.array([[lens.fx, 0, lens.ppx], [0, lens.fy, lens.ppy], [0, 0, 1.0]])

    def _silence(self, timeout: float) -> CameraError:
        if self._playback is not None:
            return RecordingEnded(self.name)
        connected = getattr(self._device, 'is_connected', lambda: True)()
        text = f'nothing within {timeout:g} s' if connected else 'it was unplugged'
        return CameraError(Reason.CAMERA_SILENT, f'{self.name}: {text}')
