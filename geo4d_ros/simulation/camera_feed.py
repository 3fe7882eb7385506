"""Renders the running cell's cameras in a thread of its own, from snapshots, so that the physics never waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import mujoco
import numpy as np

from geo4d_ros.geometry.cameras import Camera
from geo4d_ros.simulation.noise import add_depth_noise
from geo4d_ros.simulation.rendering import RgbdRenderer
from geo4d_ros.simulation.runner import CellRunner, Snapshot

Frames = list[tuple[np.ndarray, np.ndarray]]


class CameraFeed:
    """Calls on_frames(stamp [ns], frames) `rate` times a second.

    frames: per camera rgb (H, W, 3) uint8 and depth (H, W) float32 [m].
    All cameras show the same moment. `rate` counts in the cell's time; when rendering is slower, frames are
    left out. The GL context lives and dies in the thread. `noise` is a depth noise model of simulation.noise.
    """

    def __init__(self, runner: CellRunner, cameras: tuple[Camera, ...], rate: float, noise: str,
                 on_frames: Callable[[int, Frames], None], seed: int = 0) -> None:
        self._runner, self._cameras, self._period = runner, cameras, 1 / rate
        self._noise, self._on_frames = noise, on_frames
        self._rng = np.random.default_rng(seed)
        self._stopping = threading.Event()
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name='cameras', daemon=True)

    def start(self) -> None:
        """Begin rendering."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and free its GL context; safe to call twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with self._runner.lock:
                    model, generation = self._runner.cell.model, self._runner.state.generation
                self._film(model, generation)
        except Exception as error:  # the owner polls `error` and ends the process with its message
            logging.getLogger(__name__).exception('rendering failed')
            self.error = error

    def _film(self, model: mujoco.MjModel, generation: int) -> None:
        """Render until the cell is reset: a new scene needs new GL objects."""
        camera = self._cameras[0]
        data, due = mujoco.MjData(model), 0.0
        with RgbdRenderer(model, camera.height, camera.width) as renderer:
            while not self._stopping.is_set():
                state = self._runner.state
                if state.generation != generation:
                    return
                wait = due - state.stamp * 1e-9
                if wait > 0:
                    self._stopping.wait(min(wait, 0.02))
                    continue
                due = max(due + self._period, state.stamp * 1e-9)
                self._on_frames(state.stamp, self._render(renderer, model, data, state))

    def _render(self, renderer: RgbdRenderer, model: mujoco.MjModel, data: mujoco.MjData, state: Snapshot) -> Frames:
        data.qpos[:] = state.qpos
        mujoco.mj_forward(model, data)
        views = renderer.render_many(data, self._cameras)
        return [(rgb, add_depth_noise(self._noise, depth, camera.K, self._rng))
                for (rgb, depth, _), camera in zip(views, self._cameras, strict=True)]
