"""Feeds the state machine one event at a time and carries out what it answers, whatever that brings about."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from geo4d_ros.loop.events import Action, ActionData, ActionKind, Event, EventData, EventKind
from geo4d_ros.loop.machine import LoopConfig, LoopState, Phase
from geo4d_ros.loop.port import Port, Watcher
from geo4d_ros.loop.record import Loop
from geo4d_ros.reasons import Reason, Refusal

if TYPE_CHECKING:
    from typing import Unpack


class Interpreter:
    """The queue of events over one port; `carry_out` names what is done for each action of the state machine."""

    def __init__(self, port: Port, watcher: Watcher, carry_out: Mapping[ActionKind, Callable[[ActionData], None]],
                 ) -> None:
        self.port, self.watcher, self._carry = port, watcher, carry_out
        self.loop = Loop(LoopConfig())
        self._events: deque[Event] = deque()
        self._busy = False

    @property
    def state(self) -> LoopState:
        """Everything the loop remembers."""
        return self.loop.state

    @property
    def phase(self) -> Phase:
        """Where the loop is."""
        return self.loop.state.phase

    def handle(self, kind: EventKind, **data: Unpack[EventData]) -> tuple[Action, ...]:
        """Feed an event; returns what the state machine answered to it."""
        self._events.append(Event(kind, self.port.clock(), data))
        first: tuple[Action, ...] | None = None
        if self._busy:  # an action of an outer call brought this event about: it comes next
            return ()
        self._busy = True
        try:
            while self._events:
                event = self._events.popleft()
                actions = self.loop.handle(event)
                first = actions if first is None else first
                report = None
                for action in actions:
                    if action.kind is ActionKind.REPORT:
                        report = action.data
                    self._carry_out(action)
                if actions or event.kind is not EventKind.TICK:
                    self.watcher.changed(report)
        finally:
            self._busy = False
        return first or ()

    def _carry_out(self, action: Action) -> None:
        """Do what the state machine says; an error in it stops the arm, an error in that ends the process."""
        try:
            self.watcher.acted(action.kind.value, action.data)
            self._carry[action.kind](action.data)
        except Exception as error:
            if action.kind in (ActionKind.STOP, ActionKind.REPORT):
                raise  # whoever watches this process stops the arm
            self.watcher.erred(traceback.format_exc())
            detail = f'{action.kind.value}: {type(error).__name__}: {error}'
            self._events.append(Event(EventKind.FAULT, self.port.clock(),
                                      {'reason': Reason.INTERNAL_ERROR.code, 'detail': detail}))

    def fault(self, refusal: Refusal) -> None:
        """A watchdog, a peer or a backend found something wrong."""
        self.handle(EventKind.FAULT, reason=refusal.reason.code, detail=refusal.detail)
