"""The true future in place of a predicted one: the ceiling that any generator is compared with."""

from __future__ import annotations

from typing import Any

from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, Snapshot
from geo4d_ros.evaluation.simulated_truth import Recording, clip_of
from geo4d_ros.simulation.rollout import rollout
from geo4d_ros.types import Observation, Video4D


def true_future(cell: Any, rig: CellRig, frames: int, dt: float) -> Recording:
    """What the expert would do from the cell's present state, seen by the rig; the cell is left as it was.

    frames + 1 moments `dt` [s] apart; once the expert rests, the last moment repeats.
    """
    before = cell.save_state()
    snapshots: list[Snapshot] = []

    def look(now: Any) -> None:
        if len(snapshots) <= frames:
            snapshots.append(rig.snapshot(now))

    try:
        rollout(cell, max_seconds=frames * dt, observe=look, observe_period=dt)
        if len(snapshots) <= frames:
            snapshots.append(rig.snapshot(cell))
    finally:
        cell.restore_state(before)
    snapshots += [snapshots[-1]] * (frames + 1 - len(snapshots))
    return rig.recording_of(snapshots, dt)


class OracleGenerator:
    """A `VideoGenerator` that renders the expert's future of one cell: true geometry, no state stream."""

    name = 'oracle'

    def __init__(self, cell: Any, rig: CellRig, frames: int = 10, dt: float = 0.5) -> None:
        self.frames, self.dt = frames, dt
        self._cell, self._rig = cell, rig

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The true video from now on; the observation only has to be of this cell, the seed changes nothing."""
        return clip_of(true_future(self._cell, self._rig, self.frames, self.dt)).video
