"""What the driver needs of a cell, be it a robot or a simulation: a dozen calls, and no decision in any of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

import numpy as np

from geo4d_ros.loop.events import ActionData
from geo4d_ros.loop.verdict import PROCEED, Judgement
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.gripper_segments import GripperSegment
from geo4d_ros.motion.planning import GateValues, RobotState, TimedMotion
from geo4d_ros.motion.timing import MoveSegment
from geo4d_ros.reasons import Refusal, RefusalRecord
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

Done = Callable[[Refusal | None], None]


class ReplyValues(TypedDict, total=False):
    """What a record keeps of the generator's answer; nothing in simulation."""

    plan: str
    stamp: int  # ns, of the observation
    frames: int
    generator: str
    skew_ms: float  # between the cameras
    age_ms: float  # of the observation when it was used
    verdict: str
    verdict_text: str
    timings_ms: dict[str, float]  # stage -> ms


class CycleSummary(TypedDict, total=False):
    """One cycle in a record; a key is absent where the cycle did not get so far."""

    cycle: int
    stages_ms: dict[str, float]  # stage -> ms
    plan: str
    observation_stamp: int  # ns
    reply: ReplyValues
    observation_age_s: float  # when the plan was judged
    gate_values: GateValues
    poses: int  # of the plan that are executed
    truncated_by: str | None  # code of why not more
    refusal: RefusalRecord
    report: ActionData  # the last: reason and detail


@dataclass(frozen=True)
class Predicted:
    """The generator's answer: the id of the plan to come, the observation's stamp [ns], what else to record, and its
    verdict on the scene."""

    plan_id: str
    stamp: int
    values: ReplyValues = field(default_factory=ReplyValues)
    judgement: Judgement = PROCEED


class Port(Protocol):
    """One cell. A request returns at once and is answered through `done`, at once or later, once or never.

    Never is allowed: the driver keeps every deadline. All calls and answers come in one thread. A port judges
    nothing: what it knows badly or not at all it hands on as a Refusal.
    """

    @property
    def model(self) -> RobotModel | None:
        """The robot as it is described now; another object when the description changed."""

    @property
    def scene(self) -> Scene:
        """The obstacles as they are known now."""

    def clock(self) -> float:
        """Time for deadlines [s]: never goes back, goes on whatever the clock of the stamps does."""

    def stamp(self) -> int:
        """Now on the clock that observations and joint states are stamped by [ns]."""

    def ready(self, moves: bool) -> Refusal | None:
        """Why no run may begin now; `moves`: it is going to move the arm. A run begins after None.

        What may command during the run is what was there at this moment.
        """

    def health(self) -> Refusal | None:
        """Why a run has to stop: cameras, joint states, peers or clocks that fail. Asked in every tick of a run."""

    def stop_asked(self) -> bool:
        """Whether the operator asked for a stop on a way of its own; asked in every tick and before every goal."""

    def robot_state(self, gripper_closed: bool | None) -> RobotState | Refusal:
        """The measured robot now, or why it is not known; gripper_closed is handed through."""

    def at_rest(self, since: float) -> bool:
        """Whether every joint was measured at rest for 0.2 s, all of it after `since` [s] of `clock`."""

    def observe(self, done: Done) -> None:
        """Look; done(None) once the newest look of all cameras is good."""

    def predict(self, done: Callable[[Predicted | Refusal], None]) -> None:
        """Predict from a look exposed after now."""

    def track(self, predicted: Predicted, done: Callable[[Plan | Refusal], None]) -> None:
        """The plan that belongs to a prediction."""

    def move(self, segment: MoveSegment, done: Done) -> None:
        """Command a motion of the arm; done(None) at its end. A refusal does not stop the arm: the driver does."""

    def grip(self, segment: GripperSegment, done: Done) -> None:
        """Command the gripper; done(None) when the fingers arrived or, closing, hold something. No dwell."""

    def stop(self, hold: np.ndarray | None) -> None:
        """Cancel everything arm and gripper do, whoever commanded it, and answer nothing that is under way.

        hold (j,) [rad]: also command the arm to stand there, for a controller that ignores a cancel.
        """

    def poll(self, moving: bool) -> None:
        """Time goes on; called in every tick. moving: whether the arm may have speed."""


class Watcher:
    """Hears what the driver does; every method may be left as it is."""

    def changed(self, report: ActionData | None) -> None:
        """After every event: the last report {'reason', 'detail'} that it brought, or None."""

    def said(self, refusal: Refusal) -> None:
        """A report, as words for a log."""

    def erred(self, text: str) -> None:
        """A traceback of the package's own code."""

    def acted(self, kind: str, data: ActionData) -> None:
        """An action of the state machine (its name and data) is about to be carried out."""

    def judged(self, plan: Plan, result: TimedMotion | Refusal) -> None:
        """A plan went through the gates: a TimedMotion or a Refusal."""

    def refused(self, refusal: Refusal) -> None:
        """The cycle is refused, or its motion is."""

    def cycle(self, summary: CycleSummary) -> None:
        """A cycle is over: its stamps, ages, gate values and `stages_ms`."""
