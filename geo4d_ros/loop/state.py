"""What the receding-horizon loop is made of: its phases, its settings and everything it remembers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.motion.planning import PlannedSegment
from geo4d_ros.reasons import Reason


class Phase(str, Enum):
    """Where the loop is."""

    IDLE = 'IDLE'
    OBSERVING = 'OBSERVING'
    PREDICTING = 'PREDICTING'
    PLANNING = 'PLANNING'
    AWAITING_APPROVAL = 'AWAITING_APPROVAL'
    EXECUTING = 'EXECUTING'
    SETTLING = 'SETTLING'
    STOPPING = 'STOPPING'
    DONE = 'DONE'
    FAULT = 'FAULT'


class Recovery(str, Enum):
    """A motion that no generator predicted: out of where the loop got stuck, through the same gates."""

    OPEN = 'OPEN'  # open the gripper, then leave: nothing, or not safely, held
    RETREAT = 'RETREAT'  # go a little back the way the arm came, the gripper as it is


RESTING = (Phase.IDLE, Phase.DONE, Phase.FAULT)


@dataclass(frozen=True)
class LoopConfig:
    """How the loop runs; times in [s]. Safe by default: a dry run, and every plan needs approval."""

    dry_run: bool = True
    auto: bool = False
    recover: bool = False  # go a little back by itself after a refused plan or a motion that was held up
    max_cycles: int = 30
    max_seconds: float = 600.0
    max_refusals: int = 3
    max_blocked: int = 3  # motions in a row that the arm could not follow
    approval_seconds: float = 10.0
    observe_seconds: float = 5.0
    predict_seconds: float = 30.0
    plan_seconds: float = 10.0
    execution_factor: float = 1.3
    execution_slack: float = 1.0
    gripper_seconds: float = 10.0
    settle_seconds: float = 5.0
    stop_seconds: float = 2.0
    clock_tolerance: float = 0.1
    done_excursion: float = 0.02  # m: no predicted pose is farther than this from the gripper now
    done_turn: float = 0.2  # rad
    done_cycles: int = 2
    verdict_cycles: int = 2  # looks in a row that find nothing to do end the run
    same_grasp: float = 0.01  # m: closer to where the gripper closed on nothing it does not close again
    progress_cycles: int = 5
    progress_distance: float = 0.01  # m
    missed_opening: float = 0.003  # m, as in MotionLimits

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, bool):
                require(value > 0, f'{name} should be positive but got {value}', ConfigurationError)


@dataclass(frozen=True)
class LoopState:
    """Everything the loop remembers. `reason` tells why it is where it is; `cycle` tags requests."""

    phase: Phase = Phase.IDLE
    reason: Reason | None = None
    detail: str = ''
    now: float = 0.0
    deadline: float | None = None
    started: float = 0.0
    single: bool = False
    cycle: int = 0  # counts up for ever, so that answers to an earlier run never match
    cycles: int = 0  # of this run
    refusals: int = 0
    done_count: int = 0
    positions: tuple[tuple[float, ...], ...] = ()  # of the tool, at the last observations without a gripper action
    gripper_closed: bool | None = None  # what the gripper was last told
    plan_id: str | None = None
    segments: tuple[PlannedSegment, ...] = ()
    segment: int = 0
    used_plans: tuple[str, ...] = ()
    blocked: int = 0  # motions in a row that the arm could not follow
    misses: int = 0  # grasps in a row that hold nothing
    missed_at: tuple[tuple[float, ...], ...] = ()  # where in this run the gripper closed on nothing
    idle_count: int = 0  # looks in a row that find nothing to do
    work_seen: bool = False  # an object that the arm hides later is still there
    recovery: Recovery | None = None  # instead of a prediction; planned once the arm rests, plan_id tells
    latch: bool = False  # while STOPPING: end in FAULT
    escalated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        plain = asdict(self)
        plain.update(phase=self.phase.value, reason=self.reason and self.reason.code,
                     recovery=self.recovery and self.recovery.value)
        return plain
