"""Feeds the state machine by hand: what the tests of the loop share."""

from dataclasses import replace

from geo4d_ros.loop.events import ActionKind, Event, EventKind
from geo4d_ros.loop.machine import RESTING, LoopConfig, LoopState, Phase, step

AUTO = LoopConfig(dry_run=False, auto=True, recover=True)
MANUAL = LoopConfig(dry_run=False, recover=True)
MOVE = {'kind': 'move', 'duration': 2.0}
CLOSE = {'kind': 'gripper', 'duration': 0.5, 'closing': True}
OPEN = {'kind': 'gripper', 'duration': 0.5, 'closing': False}
BUSY = [p for p in Phase if p not in (*RESTING, Phase.STOPPING)]


class Driver:
    """Feeds events and keeps the last answer."""

    def __init__(self, config=AUTO, time=100.0):
        self.config, self.time, self.state, self.actions = config, time, LoopState(), ()
        self.plans = 0

    def send(self, kind, dt=0.1, **data):
        self.time += dt
        self.state, self.actions = step(self.state, Event(EventKind[kind], self.time, data), self.config)
        return self

    @property
    def kinds(self):
        return [a.kind.value for a in self.actions]

    @property
    def reports(self):
        return [a.data['reason'] for a in self.actions if a.kind is ActionKind.REPORT]

    def data(self, kind):
        return next(a.data for a in self.actions if a.kind.value == kind)

    def observed(self, position=None, opening=0.08, dt=0.1):
        position = [0.1 * self.state.cycle, 0.0, 0.3] if position is None else position
        return self.send('OBSERVED', dt, cycle=self.state.cycle, position=position, opening=opening)

    def predicted(self):
        return self.send('PREDICTED', cycle=self.state.cycle)

    def planned(self, *segments, excursion=0.2, turn=0.0, switches=0, plan_id=None, dt=0.1):
        self.plans += 1
        return self.send('PLANNED', dt, cycle=self.state.cycle, plan_id=plan_id or f'plan-{self.plans}',
                         segments=list(segments or (MOVE,)), excursion=excursion, turn=turn, switches=switches)

    def refused(self, reason='OBSERVATION_STALE', **extra):
        return self.send('REFUSED', cycle=self.state.cycle, reason=reason, **extra)

    def done(self, opening=0.08, dt=0.1):
        return self.send('SEGMENT_DONE', dt, plan_id=self.state.plan_id, index=self.state.segment, opening=opening)

    def rested(self):
        return self.send('STANDSTILL')

    def to(self, phase):
        """Bring a fresh loop to `phase`."""
        if phase is Phase.IDLE:
            return self
        self.send('START')
        if phase is Phase.DONE:
            self.config = replace(self.config, max_cycles=1)
            return self.refused()
        if phase in (Phase.STOPPING, Phase.FAULT):
            self.send('FAULT', reason='PEER_DEAD', detail='tracker')
            return self.send('STANDSTILL') if phase is Phase.FAULT else self
        if phase is Phase.AWAITING_APPROVAL:
            self.config = replace(self.config, auto=False)
        for target, go in ((Phase.OBSERVING, self.observed), (Phase.PREDICTING, self.predicted),
                           (Phase.PLANNING, self.planned), (Phase.EXECUTING, self.done)):
            if phase in (target, Phase.AWAITING_APPROVAL) and self.state.phase is phase:
                return self
            go()
        return self
