"""RGB-D folders: recorded from any camera, played back as one. The layout is the one that `geo4d import` reads:

    DIR/<camera>/rgb/000000.png ...    8-bit colour
    DIR/<camera>/depth/000000.png ...  16-bit counts, aligned to colour, 0 = invalid
    DIR/<camera>/camera.json           {"K": 3x3, "depth_unit_m": metres per count, "frame_id": "..."}
    DIR/<camera>/times.csv             name,time [s]
"""

from __future__ import annotations

import csv
import json
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from geo4d_ros.cameras.protocol import Camera, FrameWatch, RecordingEnded
from geo4d_ros.data.readers.folder import CameraFile
from geo4d_ros.errors import ConfigurationError, DatasetError, require
from geo4d_ros.types import RgbdFrame

MAX_COUNT = 65535
_NANOSECONDS = Decimal(10) ** 9


class FolderWriter:
    """Writes frames of one camera into DIR/<camera>; the camera's K must not change on the way."""

    def __init__(self, folder: Path, camera: Camera) -> None:
        self.folder, self._unit = folder / re.sub(r'\W+', '_', camera.name), camera.depth_unit
        require(not self.folder.exists(), f'{self.folder} exists; record into a new folder', ConfigurationError)
        try:
            for name in ('rgb', 'depth'):
                (self.folder / name).mkdir(parents=True)
        except OSError as error:
            raise ConfigurationError(f'cannot write {self.folder}: {error.strerror}; choose a writable place') \
                from error
        self._K: np.ndarray | None = None
        self._times = (self.folder / 'times.csv').open('w', newline='')
        self._table = csv.writer(self._times)
        self._table.writerow(['name', 'time'])
        self.count = 0

    def write(self, frame: RgbdFrame) -> None:
        """One frame more. Depth beyond 65535 counts is written as invalid."""
        if self._K is None:
            self._K = frame.K
            about = {'K': frame.K.tolist(), 'depth_unit_m': self._unit, 'frame_id': frame.frame_id}
            (self.folder / 'camera.json').write_text(json.dumps(about, indent=1) + '\n')
        require(bool((self._K == frame.K).all()), f'{self.folder.name} changed its intrinsics while recording')
        counts = np.rint(frame.depth / self._unit)
        counts[counts > MAX_COUNT] = 0
        name = f'{self.count:06d}'
        Image.fromarray(frame.rgb).save(self.folder / 'rgb' / f'{name}.png', compress_level=1)
        Image.fromarray(counts.astype(np.uint16)).save(self.folder / 'depth' / f'{name}.png', compress_level=1)
        self._table.writerow([name, f'{frame.stamp // 10**9}.{frame.stamp % 10**9:09d}'])
        self.count += 1

    def close(self) -> None:
        """Finish the table."""
        self._times.close()


class FolderCamera:
    """One camera of a recorded folder; implements `cameras.protocol.Camera`."""

    def __init__(self, folder: Path) -> None:
        """DatasetError names what is missing in `folder`."""
        self.name, self._folder = folder.name, folder
        about = self._about()
        try:
            self.depth_unit = float(about.get('depth_unit_m', 0.001))
            self._K = np.array(about['K'], np.float64).reshape(3, 3)
            with (folder / 'times.csv').open(newline='') as file:
                rows = list(csv.DictReader(file))
            self._frames = [(str(row['name']), int(Decimal(row['time']) * _NANOSECONDS)) for row in rows]
        except (KeyError, TypeError, ValueError, OSError, InvalidOperation) as error:
            raise DatasetError(f'{folder} is no recorded camera: {type(error).__name__} {error}') from error
        self._frame_id = str(about.get('frame_id', f'{self.name}_color_optical_frame'))
        self.watch, self._next = FrameWatch(self.name), 0

    def _about(self) -> CameraFile:
        path = self._folder / 'camera.json'
        try:
            about = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DatasetError(f'{path} cannot be read ({error}); it holds K and depth_unit_m') from error
        require(isinstance(about, dict), f'{path} should hold an object', DatasetError)
        return cast(CameraFile, about)

    def read(self, timeout: float = 2.0) -> RgbdFrame:
        """See `Camera.read`; as fast as it is asked."""
        if self._next >= len(self._frames):
            raise RecordingEnded(self.name)
        name, stamp = self._frames[self._next]
        self.watch.check(self._next, stamp)
        self._next += 1
        try:
            with Image.open(self._folder / 'rgb' / f'{name}.png') as image:
                rgb = np.array(image.convert('RGB'))
            with Image.open(self._folder / 'depth' / f'{name}.png') as image:
                counts = np.array(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise DatasetError(f'{self._folder}: frame {name} cannot be read ({error})') from error
        return RgbdFrame(rgb, (counts * self.depth_unit).astype(np.float32), self._K, stamp, self._frame_id)

    def close(self) -> None:
        """Nothing is open."""
