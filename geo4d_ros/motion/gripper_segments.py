"""When the gripper acts: splitting a plan where its opening switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from geo4d_ros.geometry.transforms import translation_distance
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.types import Plan


class GripperRecord(TypedDict):
    """An action of the gripper in a record: opening [m] to reach, dwell [s]."""

    target: float
    closing: bool
    dwell: float


@dataclass(frozen=True)
class GripperSegment:
    """The arm stands still; the gripper goes to `target` [m] and the loop waits `dwell` [s] after it."""

    target: float
    closing: bool
    dwell: float

    @property
    def duration(self) -> float:
        """The dwell [s]; the stroke itself is up to the gripper."""
        return self.dwell

    def to_json(self) -> GripperRecord:
        """Plain values for a record."""
        return {'target': self.target, 'closing': self.closing, 'dwell': self.dwell}


@dataclass(frozen=True)
class Leg:
    """Move to the plan's pose `end_pose` (-1: stay at the start), then act with the gripper if one is given."""

    end_pose: int
    gripper: GripperSegment | None


def is_closed(opening: float, limits: MotionLimits) -> bool:
    """Whether a measured opening [m] is that of a gripper that was told to close."""
    return not opening >= limits.stroke - limits.opening_switch


def opening_switches(opening: np.ndarray, opening_now: float, closed: bool, limits: MotionLimits,
                     slow: np.ndarray | None = None) -> list[tuple[int, bool]]:
    """(pose index, closing) of every switch of the predicted opening (n,) [m], with hysteresis.

    An open gripper closes once the prediction falls `opening_switch` below the widest opening seen
    since it opened; a closed one (which may hold something wide) opens once it rises as far above
    the narrowest. Relative to what is held, since a held object keeps the fingers far apart; a
    prediction narrower than that cannot come true and is an error of the reading. So is an opening that
    changes in full motion: grippers close and let go where the arm stands, and `slow` (n,) tells where
    that is (None: everywhere). A gripper that holds nothing may open on the way.
    """
    switches = []
    reference = opening_now
    held = opening_now if closed else 0.0
    for i, predicted in enumerate(opening):
        value = max(predicted, held)
        reference = min(reference, value) if closed else max(reference, value)
        switched = value > reference + limits.opening_switch if closed else value < reference - limits.opening_switch
        if switched and (slow is None or slow[i] or (closed and grasp_missed(opening_now, limits))):
            closed = not closed
            reference, held = value, 0.0
            switches.append((i, closed))
    return switches


def stands(T_start: np.ndarray, T: np.ndarray, limits: MotionLimits) -> np.ndarray:
    """At which poses T (n, 4, 4) after T_start (4, 4) the arm stands, at least almost: (n,) bool.

    One of the steps to and from the pose is short. A still hand moves by what the reading errs, one in full motion
    by 4 to 5 cm between two frames.
    """
    steps = translation_distance(np.concatenate([T_start[None], T[:-1]]), T)
    return np.asarray(np.minimum(steps, np.append(steps[1:], np.inf)) <= limits.standing_step + 1e-9)


def split_at_switches(plan: Plan, opening_now: float, gripper_closed: bool | None, n: int, T_start: np.ndarray,
                      limits: MotionLimits) -> list[Leg]:
    """Legs of the first n poses: at a switch the arm goes to the lower neighbouring pose and stops there.

    The neighbours of a switch at pose i are poses i - 1 and i (the start for i = 0). Closing while
    moving fails even on true poses, hence the stop and the dwell.
    """
    closed = is_closed(opening_now, limits) if gripper_closed is None else gripper_closed
    z = np.concatenate([T_start[None, 2, 3], plan.T_base_gripper[:n, 2, 3]])
    legs = []
    slow = stands(T_start, plan.T_base_gripper, limits)
    for i, closing in opening_switches(plan.opening[:n], opening_now, closed, limits, slow):
        stop = i if z[i + 1] < z[i] else i - 1
        target = 0.0 if closing else limits.stroke
        legs.append(Leg(stop, GripperSegment(target, closing, limits.dwell)))
    if not legs or legs[-1].end_pose < n - 1:
        legs.append(Leg(n - 1, None))
    return legs


def let_go(opening_before: float, opening: float, limits: MotionLimits) -> bool:
    """Whether fingers that could not open all the way (a bin's wall) opened enough to let go of what they held."""
    return opening >= opening_before + limits.opening_switch


def grasp_missed(opening: float, limits: MotionLimits) -> bool:
    """Whether a gripper that was told to close holds nothing; an unknown opening counts as missed."""
    return not opening > limits.missed_opening
