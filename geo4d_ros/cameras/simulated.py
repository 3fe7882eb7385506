"""The cameras of a simulated cell as cameras: every read is the scene a frame later."""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import require
from geo4d_ros.simulation.cameras import sample_cameras
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.simulation.noise import add_depth_noise
from geo4d_ros.simulation.rendering import RgbdRenderer
from geo4d_ros.types import RgbdFrame


class SimulatedRig:
    """Two or more cameras around one cell. Pictures of one moment have one stamp [ns of the cell's time]."""

    def __init__(self, task: str = 'apple', seed: int = 0, count: int = 2, size: tuple[int, int] = (480, 640),
                 rate: float = 30.0, noise: str = 'd435', split: str = 'held-out') -> None:
        require(rate > 0, f'rate should be positive but got {rate}')
        self.cell = Cell(task, seed)
        self.poses = sample_cameras(np.random.default_rng([seed, 2]), count, split, width=size[1], height=size[0])
        self._renderer = RgbdRenderer(self.cell.model, *size)
        self._noise, self._rng = noise, np.random.default_rng([seed, 3])
        self._steps = max(1, round(1 / rate / self.cell.dt))
        self._shown = -1
        self._pictures: list[RgbdFrame] = []
        self.cameras = [SimulatedCamera(self, i) for i in range(count)]

    def frame(self, camera: int, number: int) -> RgbdFrame:
        """Picture `number` of a camera; the cell moves on when a camera asks for one that was not yet."""
        if number > self._shown:
            self.cell.step(self._steps)
            rendered = self._renderer.render_many(self.cell.data, self.poses)
            self._pictures = [
                RgbdFrame(rgb, add_depth_noise(self._noise, depth, pose.K, self._rng), pose.K,
                          round(self.cell.time * 1e9), f'camera{i + 1}_color_optical_frame')
                for i, (pose, (rgb, depth, _)) in enumerate(zip(self.poses, rendered, strict=True))]
            self._shown += 1
        return self._pictures[camera]

    @property
    def shown(self) -> int:
        """Number of the newest pictures; -1 before the first."""
        return self._shown

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()


class SimulatedCamera:
    """One camera of a rig; implements `cameras.protocol.Camera`."""

    depth_unit = 0.001

    def __init__(self, rig: SimulatedRig, index: int) -> None:
        self.name = f'camera{index + 1}'
        self._rig, self._index, self._number = rig, index, -1

    def read(self, timeout: float = 2.0) -> RgbdFrame:
        """See `Camera.read`; never silent."""
        self._number = max(self._number + 1, self._rig.shown)
        return self._rig.frame(self._index, self._number)

    def close(self) -> None:
        """Close the rig, for all its cameras."""
        self._rig.close()
