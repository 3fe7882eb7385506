"""What the state machine hears and says: plain, serialisable events and actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import isfinite
from typing import TypedDict

from geo4d_ros.errors import require
from geo4d_ros.motion.planning import PlannedSegment
from geo4d_ros.reasons import Kind, Reason


class EventKind(str, Enum):
    """What happened. Answers carry the `cycle` of the action they answer; late ones are ignored."""

    START = 'START'  # operator: run the closed loop
    STEP = 'STEP'  # operator: run one cycle
    APPROVE = 'APPROVE'  # operator: plan_id
    STOP = 'STOP'  # operator
    RESET = 'RESET'  # operator: leave FAULT
    OBSERVED = 'OBSERVED'  # cycle, position [m] (3), opening [m]: pair and robot state passed their gates
    PREDICTED = 'PREDICTED'  # cycle; optional verdict (of types.Verdict) and detail
    PLANNED = 'PLANNED'  # cycle, plan_id, segments, excursion, turn, switches (motion.planning.describe)
    REFUSED = 'REFUSED'  # cycle, reason (code), detail: the cycle's observation, prediction, plan or motion is refused
    SEGMENT_DONE = 'SEGMENT_DONE'  # plan_id, index, opening [m]; optional position [m] (3) of the tool
    STANDSTILL = 'STANDSTILL'  # all joints measured at rest, after the last EXECUTE or STOP
    FAULT = 'FAULT'  # reason (code), detail: a watchdog or the backend found something wrong
    TICK = 'TICK'  # time goes on


_REQUIRED: dict[EventKind, tuple[str, ...]] = {
    EventKind.APPROVE: ('plan_id',),
    EventKind.OBSERVED: ('cycle', 'position', 'opening'),
    EventKind.PREDICTED: ('cycle',),
    EventKind.PLANNED: ('cycle', 'plan_id', 'segments', 'excursion', 'turn', 'switches'),
    EventKind.REFUSED: ('cycle', 'reason'),
    EventKind.SEGMENT_DONE: ('plan_id', 'index', 'opening'),
    EventKind.FAULT: ('reason',),
}


class EventData(TypedDict, total=False):
    """What an event may carry; which keys it has to is in `_REQUIRED`."""

    cycle: int
    plan_id: str
    position: Sequence[float] | None  # (3,) m: the tool in the base frame
    opening: float  # m
    verdict: str  # of types.Verdict
    segments: Sequence[PlannedSegment]
    poses: int
    excursion: float  # m
    turn: float  # rad
    switches: int
    index: int  # of a segment
    reason: str  # code
    detail: str


class EventRecord(TypedDict):
    """An event in a record."""

    kind: str
    time: float
    data: EventData


@dataclass(frozen=True)
class Event:
    """Something that happened at `time` [s] of the node's clock. Raises InvalidInputError when incomplete."""

    kind: EventKind
    time: float
    data: EventData = field(default_factory=EventData)

    def __post_init__(self) -> None:
        missing = [key for key in _REQUIRED.get(self.kind, ()) if key not in self.data]
        require(not missing, f'event {self.kind.value} lacks {missing}')
        require(isfinite(self.time), f'event {self.kind.value} should have a finite time but got {self.time}')
        code = self.data.get('reason')
        known = code is None or (code in Reason.__members__ and Reason[code].kind in (Kind.REFUSAL, Kind.FAULT))
        require(known, f'event {self.kind.value} should carry the code of a refusal or fault but got {code!r}')

    def to_json(self) -> EventRecord:
        """Plain values for a record."""
        return {'kind': self.kind.value, 'time': self.time, 'data': self.data}

    @classmethod
    def from_json(cls, values: EventRecord) -> Event:
        """The event a record holds."""
        return cls(EventKind(values['kind']), float(values['time']), values['data'])


class ActionKind(str, Enum):
    """What to do now."""

    OBSERVE = 'OBSERVE'  # cycle: wait for a pair exposed after now; answer OBSERVED or REFUSED
    PREDICT = 'PREDICT'  # cycle: answer PREDICTED or REFUSED
    PLAN = 'PLAN'  # cycle: track, then plan_trajectory; answer PLANNED or REFUSED
    PLAN_RECOVERY = 'PLAN_RECOVERY'  # cycle, recovery, again (1, 2, ...): plan_recovery; answer PLANNED or REFUSED
    ASK_APPROVAL = 'ASK_APPROVAL'  # plan_id, expires [s]: show the plan and wait for the operator
    EXECUTE = 'EXECUTE'  # plan_id, index, segment: send it; answer SEGMENT_DONE, REFUSED or FAULT
    AWAIT_STANDSTILL = 'AWAIT_STANDSTILL'  # answer STANDSTILL once the joints are measured at rest
    STOP = 'STOP'  # escalate: stop arm and gripper, cancel everything; answer STANDSTILL
    REPORT = 'REPORT'  # reason, detail: tell the operator


class ActionData(TypedDict, total=False):
    """What an action may carry; ActionKind says which keys each has."""

    cycle: int
    recovery: str  # of state.Recovery
    again: int  # the how-manieth attempt in a row
    plan_id: str
    expires: float  # s
    index: int  # of a segment
    segment: PlannedSegment
    escalate: bool
    reason: str  # code
    detail: str


class ActionRecord(TypedDict):
    """An action in a record."""

    kind: str
    data: ActionData


@dataclass(frozen=True)
class Action:
    """Something the caller has to do."""

    kind: ActionKind
    data: ActionData = field(default_factory=ActionData)

    def to_json(self) -> ActionRecord:
        """Plain values for a record."""
        return {'kind': self.kind.value, 'data': self.data}
