"""Random event sequences against the state machine, watched by a monitor that shares no code with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from geo4d_ros.loop.events import Action, ActionData, Event, EventData, EventKind
from geo4d_ros.loop.machine import LoopConfig, LoopState, step
from geo4d_ros.motion.planning import PlannedSegment
from geo4d_ros.reasons import Kind, Reason

LENGTH = 80
_CODES = [r.code for r in Reason if r.kind in (Kind.REFUSAL, Kind.FAULT)]
_REMARKS = ('NOT_ALLOWED_NOW', 'APPROVAL_WRONG_PLAN', 'GRASP_MISSED')  # reported while the run goes on
_OPERATOR = ('START', 'STEP', 'APPROVE', 'STOP', 'RESET')


class Monitor:
    """Knows from events and actions alone whether a motion may be commanded now."""

    def __init__(self, config: LoopConfig) -> None:
        self.config = config
        self.wrong: list[str] = []
        self.codes: list[str] = []
        self._running = False
        self._faulted = False
        self._stopping = False
        self._single = False
        self._plan: EventData | None = None
        self._approved: str | None = None
        self._expires = 0.0
        self._next = 0
        self._moving = False
        self._seen: set[str] = set()
        self._cycle = 0
        self._executed = 0
        self._blocked = False  # a stop after which the loop goes on by itself, once at rest

    def see(self, event: Event, actions: tuple[Action, ...]) -> None:
        """One event and the answer of the machine to it."""
        kinds = [a.kind.value for a in actions]
        reported = [a.data.get('reason', '') for a in actions if a.kind.value == 'REPORT']
        self._see_event(event, 'NOT_ALLOWED_NOW' in reported)
        if event.kind is EventKind.STOP and 'STOP' not in kinds:
            self.wrong.append('stop_not_sent')
        over = any(code in Reason.__members__ and Reason[code].kind is Kind.END for code in reported)
        if event.kind is EventKind.FAULT and self._running and 'STOP' not in kinds and not over:
            self.wrong.append('fault_without_stop')
        self._faulted |= event.kind is EventKind.FAULT and (self._running or self._stopping)
        self._blocked = ('TRACKING_ERROR' in reported and 'STOP' in kinds and event.kind is EventKind.REFUSED) \
            or (self._blocked and event.kind not in (EventKind.STOP, EventKind.FAULT, EventKind.STANDSTILL)
                and 'STOP' not in kinds)
        self._stopping |= 'STOP' in kinds and self._running
        if event.kind in (EventKind.STOP, EventKind.FAULT):
            self._running, self._moving = False, False
        for action in actions:
            self._see_action(action, event)

    def _see_event(self, event: Event, refused: bool) -> None:
        data = event.data
        if event.kind in (EventKind.START, EventKind.STEP) and not self._faulted and not self._running and not refused:
            self._running, self._executed, self._single = True, 0, event.kind is EventKind.STEP
            self._plan, self._approved, self._moving, self._stopping = None, None, False, False
        elif event.kind is EventKind.RESET and not refused:
            self._faulted = self._stopping = False
        elif event.kind is EventKind.APPROVE and event.time <= self._expires and not refused:
            self._approved = data['plan_id']
        elif event.kind is EventKind.PLANNED and data['cycle'] == self._cycle and not refused:
            self._plan, self._next, self._approved = (None if data['plan_id'] in self._seen else data), 0, None
            self._seen.add(data['plan_id'])
        elif event.kind is EventKind.SEGMENT_DONE and self._plan and data['plan_id'] == self._plan['plan_id']:
            self._moving = self._moving and data['index'] != self._next - 1
        elif event.kind is EventKind.STANDSTILL and not refused:
            self._stopping = self._moving = False
            self._running |= self._blocked
        elif event.kind is EventKind.REFUSED and data['cycle'] == self._cycle and not refused:
            self._moving = False  # the caller says that the segment was not sent

    def _see_action(self, action: Action, event: Event) -> None:
        kind, data = action.kind.value, action.data
        if kind in ('OBSERVE', 'PREDICT', 'PLAN', 'PLAN_RECOVERY', 'EXECUTE', 'ASK_APPROVAL') and not self._running:
            self.wrong.append(f'{kind.lower()}_after_stop')
        if kind in ('OBSERVE', 'PREDICT', 'PLAN', 'PLAN_RECOVERY'):
            self._cycle = data['cycle']
            if self._moving:
                self.wrong.append('looked_while_moving')
        elif kind == 'ASK_APPROVAL':
            self._expires = data['expires']
        elif kind == 'STOP':
            self._running = False
        elif kind == 'EXECUTE':
            self._see_motion(data)
        elif kind == 'REPORT':
            self._see_report(data)

    def _see_motion(self, data: ActionData) -> None:
        if self.config.dry_run:
            self.wrong.append('motion_in_dry_run')
        if self._plan is None or data['plan_id'] != self._plan['plan_id'] or data['index'] != self._next:
            self.wrong.append('motion_not_planned')
        if not self.config.auto and self._approved != data['plan_id']:
            self.wrong.append('motion_not_approved')
        if self._moving:
            self.wrong.append('two_motions')
        if data['index'] == 0:
            self._executed += 1
        # A cycle may add an opening, and ways back as long as the arm is held up.
        if self._executed > (2 + self.config.max_blocked) * self.config.max_cycles:
            self.wrong.append('too_many_motions')
        self._moving, self._next = True, self._next + 1

    def _see_report(self, data: ActionData) -> None:
        if data.get('reason') not in Reason.__members__:
            self.wrong.append('report_without_code')
            return
        reason = Reason[data['reason']]
        self.codes.append(reason.code)
        self._faulted |= self._stopping and (reason.kind is Kind.FAULT or reason is Reason.CLOCK_JUMP)
        ended = reason.kind is Kind.END and reason is not Reason.DRY_RUN
        if ended or (self._single and reason.kind is not Kind.FAULT and reason.code not in _REMARKS):
            self._running = False


def random_config(rng: np.random.Generator) -> LoopConfig:
    """A loop with small limits, so that a short sequence meets them."""
    return LoopConfig(dry_run=bool(rng.random() < 0.2), auto=bool(rng.random() < 0.5),
                      recover=bool(rng.random() < 0.5),
                      max_cycles=int(rng.integers(1, 8)), max_seconds=float(rng.uniform(20, 200)),
                      max_refusals=int(rng.integers(1, 5)), progress_cycles=int(rng.integers(2, 6)))


def run_sequence(seed: int, index: int, change: Callable[[LoopConfig], LoopConfig] | None = None,
                 length: int = LENGTH) -> tuple[list[str], list[str]]:
    """Violations and reported codes of one random sequence; `change`: of the machine's settings, unknown to the judge.
    """
    rng = np.random.default_rng([seed, index])
    config = random_config(rng)
    monitor, state, time = Monitor(config), LoopState(), 0.0
    config = change(config) if change else config
    pending: list[Action] = []
    for _ in range(length):
        time += float(rng.exponential(0.3)) if rng.random() < 0.95 else float(rng.choice([-5.0, 15.0, 60.0]))
        event = _next_event(rng, time, pending, state)
        state, actions = step(state, event, config)
        pending = [*pending, *actions][-4:]
        monitor.see(event, actions)
    return monitor.wrong, monitor.codes


def _next_event(rng: np.random.Generator, time: float, pending: list[Action], state: LoopState) -> Event:
    """Mostly the answer to the last request; sometimes a late, wrong or hostile event."""
    roll = rng.random()
    if roll < 0.75 and pending:
        answer = _answer(rng, time, pending[-1 if rng.random() < 0.9 else 0], state)
        if answer is not None:
            return answer
    if roll < 0.83 and state.phase.value in ('IDLE', 'DONE'):
        return Event(EventKind[str(rng.choice(['START', 'START', 'STEP']))], time)
    return _hostile(rng, time, state)


def _answer(rng: np.random.Generator, time: float, action: Action, state: LoopState) -> Event | None:
    kind, data = action.kind.value, action.data
    if kind in ('OBSERVE', 'PREDICT', 'PLAN', 'PLAN_RECOVERY') and rng.random() < 0.12:
        return Event(EventKind.REFUSED, time, {'cycle': data['cycle'], 'reason': str(rng.choice(_CODES))})
    if kind == 'OBSERVE':
        opening = float(rng.choice([0.08, 0.03, 0.0, np.nan]))
        return Event(EventKind.OBSERVED, time, {'cycle': data['cycle'], 'opening': opening,
                                                'position': rng.normal(0, rng.choice([0.001, 0.3]), 3).tolist()})
    if kind == 'PREDICT':
        return Event(EventKind.PREDICTED, time, {'cycle': data['cycle']})
    if kind in ('PLAN', 'PLAN_RECOVERY'):
        return _planned(rng, time, data['cycle'])
    if kind == 'ASK_APPROVAL':
        plan_id = data['plan_id'] if rng.random() < 0.8 else 'another'
        return Event(EventKind.APPROVE, time, {'plan_id': plan_id})
    if kind == 'EXECUTE':
        if rng.random() < 0.15:
            code = str(rng.choice(['TRACKING_ERROR', 'GRASP_UNSETTLED', 'START_MOVED', 'PATH_INCOMPLETE']))
            return Event(EventKind.REFUSED, time, {'cycle': state.cycle, 'reason': code})
        return Event(EventKind.SEGMENT_DONE, time, {'plan_id': data['plan_id'], 'index': data['index'],
                                                    'opening': float(rng.choice([0.03, 0.0, np.nan]))})
    if kind in ('AWAIT_STANDSTILL', 'STOP'):
        return Event(EventKind.STANDSTILL, time)
    return Event(EventKind.RESET, time) if state.phase.value == 'FAULT' else None


def _planned(rng: np.random.Generator, time: float, cycle: int) -> Event:
    segments: list[PlannedSegment] = []
    for _ in range(int(rng.integers(0, 4))):
        gripper = rng.random() < 0.4
        segments.append({'kind': 'gripper', 'duration': 0.5, 'closing': bool(rng.random() < 0.5)} if gripper
                        else {'kind': 'move', 'duration': float(rng.uniform(0.1, 3))})
    return Event(EventKind.PLANNED, time, {
        'cycle': cycle, 'plan_id': f'p{rng.integers(200)}', 'segments': segments, 'switches': int(rng.integers(2)),
        'excursion': float(rng.choice([0.001, 0.2])), 'turn': float(rng.choice([0.0, 0.5]))})


def _hostile(rng: np.random.Generator, time: float, state: LoopState) -> Event:
    """Any event at all, with an old, right or future cycle."""
    kind = EventKind[str(rng.choice([*EventKind.__members__, 'TICK', 'TICK', 'TICK']))]
    cycle = state.cycle + int(rng.integers(-2, 3))
    if kind is EventKind.PLANNED:
        return _planned(rng, time, cycle)
    plan_id = str(rng.choice([f'p{rng.integers(200)}', str(state.plan_id)]))
    data: EventData = {'cycle': cycle, 'plan_id': plan_id, 'index': int(rng.integers(3)), 'opening': 0.0,
                       'position': [0.0, 0.0, 0.3], 'reason': str(rng.choice(_CODES))}
    if kind.value in (*_OPERATOR, 'TICK', 'STANDSTILL'):
        data = {'plan_id': plan_id} if kind is EventKind.APPROVE else {}
    return Event(kind, time, data)
