"""Why an episode failed, judged afterwards against the simulator's truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from geo4d_ros.reasons import Kind, Reason

CAUSES = ('prediction', 'tracking', 'gate_refusal', 'motion', 'grasp', 'timeout')
TOLERANCE_M = 0.02  # executed poses farther than this from the expert's path explain a failure

_TRACKING = {Reason.TRACK_LOST, Reason.TRACKING_FAILED, Reason.CONFIDENCE_LOW, Reason.CONFIDENCE_MISSING,
             Reason.PLAN_TOO_SHORT}
_PREDICTION = {Reason.PREDICTION_FAILED, Reason.PREDICTION_INVALID, Reason.PREDICTION_TIMEOUT}


class CycleRow(TypedDict, total=False):
    """A cycle in reports, see `CycleRecord`; those of a success have no errors and no plan_id."""

    reason: str
    plan_error_m: float | None
    prediction_error_m: float | None
    closed: bool
    missed: bool
    retreated: bool
    plan_id: str


@dataclass(frozen=True)
class CycleRecord:
    """One predict-track-execute cycle, in plain values.

    reason: code of the first refusal, fault or missed grasp, '' when it was executed. plan_error_m: largest distance of
    the planned poses from the path the expert would take from the same state (place, not timing).
    prediction_error_m: largest distance of the predicted gripper pixels' middle from the true one's; both None
    where they could not be judged. closed: the plan closed the gripper; missed: it closed on nothing;
    retreated: the arm went back a little instead of on.
    """

    reason: str = ''
    plan_error_m: float | None = None
    prediction_error_m: float | None = None
    closed: bool = False
    missed: bool = False
    retreated: bool = False
    plan_id: str = ''

    def to_json(self) -> CycleRow:
        """Plain values for the report."""
        return {'reason': self.reason, 'plan_error_m': _rounded(self.plan_error_m),
                'prediction_error_m': _rounded(self.prediction_error_m), 'closed': self.closed, 'missed': self.missed,
                'retreated': self.retreated, 'plan_id': self.plan_id}


def _rounded(metres: float | None) -> float | None:
    return None if metres is None else round(metres, 4)


def cause_of(cycles: Sequence[CycleRecord]) -> str:
    """One of CAUSES for a failed episode.

    A fault of the motion wins; then an end in refusals, by what refused; then the cycle that decided the episode
    (the last that closed the gripper, else the one farthest off the expert's path): when its plan was more than
    TOLERANCE_M off, the prediction is to blame if the predicted gripper itself was off, else the tracking. A
    good plan that closed on nothing or lost the object is a grasp failure. What is left ran out of cycles.
    """
    if not cycles:
        return 'timeout'
    last = Reason[cycles[-1].reason] if cycles[-1].reason else None
    if last is not None and last is not Reason.GRASP_MISSED:
        if last.kind is Kind.FAULT and last not in (Reason.TOO_MANY_REFUSALS, Reason.NO_PROGRESS):
            return 'motion'
        refused = _last_refusal(cycles)
        if refused in (Reason.TRACKING_ERROR, Reason.GRASP_UNSETTLED):
            return 'motion'
        if refused is not None:
            return 'tracking' if refused in _TRACKING else 'prediction' if refused in _PREDICTION else 'gate_refusal'
    closing = [c for c in cycles if c.closed]
    judged = [c for c in cycles if c.plan_error_m is not None]
    decisive = closing[-1] if closing else max(judged, key=lambda c: c.plan_error_m or 0.0, default=None)
    if decisive is not None and (decisive.plan_error_m or 0) > TOLERANCE_M:
        predicted = decisive.prediction_error_m
        return 'prediction' if predicted is not None and predicted > TOLERANCE_M else 'tracking'
    return 'grasp' if closing else 'timeout'


def _last_refusal(cycles: Sequence[CycleRecord]) -> Reason | None:
    """The refusal that the episode ended in, or None."""
    for cycle in reversed(cycles):
        reason = Reason[cycle.reason] if cycle.reason else None
        if reason is None or reason is Reason.GRASP_MISSED:
            return None
        if reason.kind is Kind.REFUSAL:
            return reason
    return None
