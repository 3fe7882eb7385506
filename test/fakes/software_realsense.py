"""RealSense cameras of software (librealsense's `software_device`): what they show is what a test gives them."""

import threading

import numpy as np
import pyrealsense2 as rs


class SoftwareRealSense:
    """A RealSense of software: a depth and a colour sensor in one place, fed by `show`.

    K (3, 3) and size (height, width) of both; unit: metres per count of depth; distortion: its first coefficient.
    """

    SIZE = 48, 64
    K = np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]])

    def __init__(self, unit=0.001, distortion=0.0, K=K, size=SIZE):
        self.unit, self.K, self.size = unit, K, size
        self.device = rs.software_device()
        self.depth, self.colour = self.device.add_sensor('Depth'), self.device.add_sensor('Color')
        self.depth_profile = self._add(self.depth, rs.stream.depth, 0, rs.format.z16, 2, 0.0)
        self.colour_profile = self._add(self.colour, rs.stream.color, 1, rs.format.rgb8, 3, distortion)
        self.depth.add_read_only_option(rs.option.depth_units, unit)
        extrinsics = rs.extrinsics()
        extrinsics.rotation, extrinsics.translation = list(np.eye(3).ravel()), [0.0, 0.0, 0.0]
        self.depth_profile.register_extrinsics_to(self.colour_profile, extrinsics)
        self.device.create_matcher(rs.matchers.default)

    def _add(self, sensor, kind, uid, form, depth, distortion):
        lens = rs.intrinsics()
        lens.height, lens.width = self.size
        lens.fx, lens.fy, lens.ppx, lens.ppy = self.K[0, 0], self.K[1, 1], self.K[0, 2], self.K[1, 2]
        lens.model = rs.distortion.inverse_brown_conrady if distortion else rs.distortion.none
        lens.coeffs = [distortion, 0.0, 0.0, 0.0, 0.0]
        stream = rs.video_stream()
        stream.type, stream.index, stream.uid, (stream.height, stream.width) = kind, 0, uid, self.size
        stream.fps, stream.bpp, stream.fmt, stream.intrinsics = 30, depth, form, lens
        return rs.video_stream_profile(sensor.add_video_stream(stream))

    def show(self, number, counts=1000, grey=None, milliseconds=None):
        """One pair of frames; counts of depth and grey of the colour are numbers or pictures."""
        z, c = np.zeros(self.size, np.uint16), np.zeros((*self.size, 3), np.uint8)
        z[:], c[:] = counts, number % 256 if grey is None else grey
        stamp = number * 33.3 if milliseconds is None else milliseconds
        for sensor, pixels, size, profile in ((self.depth, z, 2, self.depth_profile),
                                              (self.colour, c, 3, self.colour_profile)):
            frame = rs.software_video_frame()
            frame.pixels, frame.stride, frame.bpp = pixels, self.size[1] * size, size
            frame.timestamp, frame.domain, frame.frame_number = stamp, rs.timestamp_domain.hardware_clock, number
            frame.profile = profile
            if size == 2:
                frame.depth_units = self.unit
            sensor.on_video_frame(frame)


class Showing:
    """Shows frames in the background until closed, as a camera does."""

    def __init__(self, source, numbers=range(1, 100_000), period=0.02, **options):
        self._source, self._numbers, self._period, self._options = source, numbers, period, options
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        for number in self._numbers:
            if self._end.wait(self._period):
                return
            self._source.show(number, **self._options)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join(20.0)
