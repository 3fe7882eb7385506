"""A run cycle by cycle: why it went on or not, how long each stage took, how right the prediction was afterwards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from geo4d_ros.evaluation.metrics.image import psnr

STAGES = {'OBSERVING': 'observe', 'PREDICTING': 'predict', 'PLANNING': 'plan', 'EXECUTING': 'execute',
          'SETTLING': 'settle'}
MOVED = 24  # grey levels by which a pixel has to differ from before to count as moved


class CycleRow(TypedDict):
    """A cycle in summary.json, see `RunCycle`."""

    cycle: int
    reason: str
    stages_ms: dict[str, float]
    psnr_moved: float | None
    copy_psnr_moved: float | None


@dataclass
class RunCycle:
    """One cycle. stages_ms: stage -> [ms]. before, predicted, after: views (V, H, W, 3) uint8, None without execution.

    psnr_moved: predicted against what came, over the pixels that changed; copy_psnr_moved: the picture from before
    against the same (what predicting no motion would have scored) [dB].
    """

    number: int
    begin: float
    reason: str = ''
    stages_ms: dict[str, float] = field(default_factory=dict)
    before: np.ndarray | None = None
    predicted: np.ndarray | None = None
    after: np.ndarray | None = None
    psnr_moved: float | None = None
    copy_psnr_moved: float | None = None

    def to_json(self) -> CycleRow:
        """Everything but the pictures."""
        return {'cycle': self.number, 'reason': self.reason, 'stages_ms': self.stages_ms,
                'psnr_moved': self.psnr_moved, 'copy_psnr_moved': self.copy_psnr_moved}


def cycles_of(pictures: list[Any], predictions: list[Any], spans: list[tuple[float, float, str]],
              reasons: dict[int, str], executed_frames: int) -> list[RunCycle]:
    """Cut a run (as `ros.graph.run_recorder` films it) into cycles; each begins with OBSERVING.

    spans (begin, end, phase); reasons: cycle -> code. Where nothing moved, or no picture came after the execution, the
    prediction is not judged.
    """
    cycles: list[RunCycle] = []
    executed: dict[int, tuple[float, float]] = {}
    for begin, end, phase in spans:
        if phase == 'OBSERVING':
            cycles.append(RunCycle(len(cycles) + 1, begin, reasons.get(len(cycles) + 1, '')))
        if not cycles or phase not in STAGES:
            continue
        stage = STAGES[phase]
        cycles[-1].stages_ms[stage] = round(cycles[-1].stages_ms.get(stage, 0.0) + (end - begin) * 1e3, 1)
        if phase == 'EXECUTING':
            first = executed.get(cycles[-1].number, (begin, end))[0]
            executed[cycles[-1].number] = (first, end)
    for i, cycle in enumerate(cycles):
        if cycle.number in executed:
            next_begin = cycles[i + 1].begin if i + 1 < len(cycles) else np.inf
            _judge(cycle, pictures, predictions, executed[cycle.number], next_begin, executed_frames)
    return cycles


def _judge(cycle: RunCycle, pictures: list[Any], predictions: list[Any], executed: tuple[float, float],
           next_begin: float, executed_frames: int) -> None:
    end = executed[1]
    shown = [p for p in pictures if cycle.begin <= p.time <= end and p.prediction >= 0]
    came = [p for p in pictures if end <= p.time <= next_begin + 0.5]
    if not shown or not came:
        return
    rgb = predictions[shown[-1].prediction].rgb
    cycle.before, cycle.after = rgb[:, 0], came[0].real
    cycle.predicted = rgb[:, min(executed_frames, rgb.shape[1] - 1)]
    if cycle.after.shape != cycle.before.shape:
        return
    moved = np.abs(cycle.after.astype(int) - cycle.before.astype(int)).max(-1) > MOVED
    if moved.any():
        cycle.psnr_moved = round(psnr(cycle.predicted, cycle.after, moved), 2)
        cycle.copy_psnr_moved = round(psnr(cycle.before, cycle.after, moved), 2)
