"""What is kept of a run: a summary of each cycle with the times of its stages, and the record on disk."""

from __future__ import annotations

import time
from pathlib import Path

from geo4d_ros.loop.machine import LoopConfig
from geo4d_ros.loop.port import CycleSummary, Watcher
from geo4d_ros.loop.record import Loop, Recorder
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.robots.kinematics import RobotModel


class Diary:
    """Collects the summary of the cycle under way; at its end `watcher.cycle` and the record get it."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self.recorder: Recorder | None = None
        self.summary: CycleSummary = {}
        self._lapped = time.perf_counter()

    def open(self, path: Path | None, config: LoopConfig, limits: MotionLimits, scene: Scene, model: RobotModel,
             seed: int) -> Loop:
        """The state machine of a run that begins, recorded into the new file `path` where one is given."""
        self.close()
        if path is not None:
            self.recorder = Recorder(path)
            self.recorder.header(config, limits, scene, model, seed)
        return Loop(config, self.recorder)

    def close(self) -> None:
        """End the record, when there is one."""
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None

    def begin_cycle(self, cycle: int) -> None:
        """The cycle before is over."""
        self.end_cycle()
        self.summary = {'cycle': cycle, 'stages_ms': {}}
        self._lapped = time.perf_counter()

    def lap(self, stage: str) -> None:
        """A stage is over that began with the end of the one before."""
        now = time.perf_counter()
        self.summary.setdefault('stages_ms', {})[stage] = (now - self._lapped) * 1e3
        self._lapped = now

    def end_cycle(self) -> None:
        """Hand the summary out, when a cycle was begun."""
        if 'cycle' in self.summary:
            self._watcher.cycle(self.summary)
            if self.recorder is not None:
                self.recorder.cycle(**self.summary)
        self.summary = {}
