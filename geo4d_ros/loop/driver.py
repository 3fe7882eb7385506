"""Carries out what the state machine decides, through a port, and tells it what happened. The only interpreter.

Nothing here blocks, and every check before a motion is made here: a port commands and reports. Deadlines count
on the port's clock, ages of data on the clock that they are stamped by. Not thread-safe: one thread calls.
"""

from __future__ import annotations

from pathlib import Path

from geo4d_ros.loop.checks import PASSING, Judged, World, check_robot, check_segment
from geo4d_ros.loop.diary import Diary
from geo4d_ros.loop.events import ActionData, ActionKind, EventKind
from geo4d_ros.loop.interpreter import Interpreter
from geo4d_ros.loop.machine import RESTING, LoopConfig, Phase, Recovery
from geo4d_ros.loop.port import Port, Predicted, Watcher
from geo4d_ros.loop.record import Loop
from geo4d_ros.loop.recovery import Trail, plan_recovery, recovery_plans
from geo4d_ros.motion.gripper_segments import GripperSegment, let_go
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState, TimedMotion, describe, plan_trajectory
from geo4d_ros.reasons import Kind, Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.types import Plan

PATIENCE = 1.0  # [s] that what may pass by itself has to become good
MOVING = (Phase.EXECUTING, Phase.SETTLING, Phase.STOPPING)  # phases in which the arm may have speed


class Driver(Interpreter):
    """The loop over one port. `handle` feeds one event and carries out all that follows; `tick` lets time go on.

    Call `tick` 20 times a second or more: it runs the watchdogs and every wait.
    """

    def __init__(self, port: Port, watcher: Watcher | None = None) -> None:
        super().__init__(port, watcher or Watcher(), {
            ActionKind.OBSERVE: self._observe, ActionKind.PREDICT: self._predict, ActionKind.PLAN: self._track,
            ActionKind.PLAN_RECOVERY: self._plan_recovery, ActionKind.ASK_APPROVAL: self._ask_approval,
            ActionKind.EXECUTE: self._execute, ActionKind.AWAIT_STANDSTILL: self._await_standstill,
            ActionKind.STOP: self._stop, ActionKind.REPORT: self._report})
        self._diary = Diary(self.watcher)
        self._limits, self._poses = MotionLimits(), 5
        self._world: World | None = None  # of this run
        self._trail = Trail()
        self._approved: str | None = None
        self._stamp_since = 0
        self._predicted: Predicted | None = None
        self._forget()

    def _forget(self) -> None:
        """Nothing is waited for, nothing may be sent."""
        self._observe_since: float | None = None
        self._rest_since: float | None = None
        self._dwell_until: tuple[float, ActionData] | None = None
        self._to_send: tuple[float, ActionData] | None = None
        self._judged: Judged | None = None

    # --- the operator's side ---

    def configure(self, config: LoopConfig, limits: MotionLimits, poses: int) -> None:
        """Settings of the next run; only while the loop rests."""
        state, self._limits, self._poses = self.loop.state, limits, poses
        self.loop = Loop(config)
        self.loop.state = state

    def begin(self, kind: EventKind, record: Path | None = None, seed: int = 0) -> Refusal | None:
        """START or STEP; the reason when no run may begin now. A record goes into a new file `record`.

        Raises ConfigurationError where the record cannot be written.
        """
        if self.port.stop_asked():  # before this request: it must not end the run that begins now
            self.handle(EventKind.STOP)
        if self.phase not in (Phase.IDLE, Phase.DONE):
            self.handle(kind)  # which reports that it is not allowed now
            return Refusal(Reason.NOT_ALLOWED_NOW, f'{kind.value} in {self.phase.value}')
        refusal = self.port.ready(moves=not self.loop.config.dry_run)
        model = self.port.model
        if refusal is not None or model is None:
            return refusal or Refusal(Reason.ROBOT_STATE_INVALID, 'no robot description')
        self._world, self._approved = World(model, self.port.scene), None
        state, self.loop = self.loop.state, self._diary.open(record, self.loop.config, self._limits, self.port.scene,
                                                             model, seed)
        self.loop.state = state
        self.handle(kind)
        return None

    def approve(self, plan_id: str) -> Refusal | None:
        """The operator approves the plan with this id; the reason when it is not the one that waits."""
        self._approved = plan_id
        actions = self.handle(EventKind.APPROVE, plan_id=plan_id)
        odd = [a.data for a in actions if a.kind is ActionKind.REPORT
               and a.data['reason'] in (Reason.NOT_ALLOWED_NOW.code, Reason.APPROVAL_WRONG_PLAN.code)]
        return Refusal(Reason[odd[0]['reason']], odd[0]['detail']) if odd else None

    def close_record(self) -> None:
        """End the record, when there is one."""
        self._diary.close()

    # --- time ---

    def tick(self) -> None:
        """Watchdogs and waits."""
        self.port.poll(self.phase in MOVING)
        if self.port.stop_asked():
            self.handle(EventKind.STOP)
        if self.phase not in RESTING:
            self._watch()
        self._wait_for_observation()
        self._wait_for_rest()
        self._wait_for_dwell()
        self._wait_to_send()
        self.handle(EventKind.TICK)

    def _watch(self) -> None:
        """A run goes on only while everything it needs is known to be good; an arm that moves has to be measured."""
        refusal = self.port.health() or self._check_world()
        if refusal is None and self.phase in MOVING:
            state = self.port.robot_state(None)
            refusal = state if isinstance(state, Refusal) else None
        if refusal is not None and not (self.phase is Phase.STOPPING and self.state.latch):
            self.fault(refusal)

    def _check_world(self) -> Refusal | None:
        if self._world is None:
            return Refusal(Reason.MODEL_CHANGED, 'no robot was known when the run began')
        return self._world.check_same(self.port.model, self.port.scene)

    def _expected(self, cycle: int, phase: Phase) -> bool:
        """Whether an answer of this cycle still matters: the loop may have moved on."""
        return cycle == self.state.cycle and self.phase is phase

    def _robot(self) -> tuple[RobotState, RobotModel] | Refusal:
        state, model = self.port.robot_state(self.state.gripper_closed), self.port.model
        if isinstance(state, Refusal):
            return state
        return (state, model) if model is not None else Refusal(Reason.ROBOT_STATE_INVALID, 'no robot description')

    # --- one method per action ---

    def _observe(self, data: ActionData) -> None:
        self._diary.begin_cycle(data['cycle'])
        self._forget()
        self._observe_since, self._stamp_since = self.port.clock(), self.port.stamp()
        self._wait_for_observation()

    def _wait_for_observation(self) -> None:
        """The cameras are asked once the arm rests in a known state."""
        if self._observe_since is None or self.phase is not Phase.OBSERVING:
            return
        refusal = self._not_standing()
        if refusal is not None and refusal.reason.kind is not Kind.FAULT \
                and self.port.clock() - self._observe_since < PATIENCE:
            return
        self._observe_since, cycle = None, self.state.cycle
        if refusal is not None:
            self._refuse(cycle, refusal)
        else:
            self.port.observe(lambda refusal: self._observed(cycle, refusal))

    def _not_standing(self) -> Refusal | None:
        robot = self._robot()
        if isinstance(robot, Refusal):
            return robot
        resting = None if self.port.at_rest(0.0) else Refusal(Reason.ROBOT_MOVING, 'not at rest for long enough')
        return check_robot(*robot, self._limits, self.port.stamp()) or resting

    def _observed(self, cycle: int, refusal: Refusal | None) -> None:
        if not self._expected(cycle, Phase.OBSERVING):
            return
        robot = refusal or self._robot()
        if isinstance(robot, Refusal):
            self._refuse(cycle, robot)
            return
        state, model = robot
        self._diary.lap('observe')
        self.handle(EventKind.OBSERVED, cycle=cycle, position=model.forward(state.q)[:3, 3].tolist(),
                    opening=state.opening)

    def _position(self, state: RobotState) -> list[float] | None:
        """Of the tool, in the base frame [m]."""
        model = self.port.model
        return None if model is None else [float(x) for x in model.forward(state.q)[:3, 3]]

    def _predict(self, data: ActionData) -> None:
        self.port.predict(lambda answer: self._on_predicted(data['cycle'], answer))

    def _on_predicted(self, cycle: int, answer: Predicted | Refusal) -> None:
        if not self._expected(cycle, Phase.PREDICTING):
            return
        if isinstance(answer, Predicted) and answer.stamp < self._stamp_since:
            answer = Refusal(Reason.OBSERVATION_STALE, 'the generator used images from before the arm came to rest')
        if isinstance(answer, Refusal):
            self._refuse(cycle, answer)
            return
        self._predicted = answer
        self._diary.lap('predict')
        self._diary.summary.update({'plan': answer.plan_id, 'observation_stamp': answer.stamp, 'reply': answer.values})
        self.handle(EventKind.PREDICTED, cycle=cycle, verdict=answer.judgement.verdict.value,
                    detail=answer.judgement.text)

    def _track(self, data: ActionData) -> None:
        predicted = self._predicted
        assert predicted is not None  # the state machine asks for a plan after a prediction only
        self.port.track(predicted, lambda answer: self._tracked(data['cycle'], predicted, answer))

    def _tracked(self, cycle: int, predicted: Predicted, plan: Plan | Refusal) -> None:
        if not self._expected(cycle, Phase.PLANNING):
            return
        self._diary.lap('track')
        if isinstance(plan, Plan) and (plan.id, plan.observation_stamp) != (predicted.plan_id, predicted.stamp):
            plan = Refusal(Reason.PLAN_INVALID, f'plan {plan.id!r} for prediction {predicted.plan_id!r}')
        if isinstance(plan, Refusal):
            self._refuse(cycle, plan)
            return
        robot = self._robot()
        if isinstance(robot, Refusal):
            self._refuse(cycle, robot)
            return
        now = self.port.stamp()
        result = plan_trajectory(plan, robot[0], self._limits, self.port.scene, robot[1], now, self._poses)
        self._decide(cycle, plan, robot, now, self._poses, result)

    def _plan_recovery(self, data: ActionData) -> None:
        """A way out instead of a predicted path; judged by the same gates."""
        robot = self._robot()
        if isinstance(robot, Refusal):
            self._refuse(data['cycle'], robot)
            return
        (state, model), recovery, now = robot, Recovery(data['recovery']), self.port.stamp()
        plans = recovery_plans(recovery, f'recovery-{data["cycle"]}-{state.stamp}', model.forward(state.q),
                               state.opening, state.stamp, self._trail, self._limits, data['again'])
        plan, state, result = plan_recovery(plans, recovery, state, self._limits, self.port.scene, model, now)
        self._decide(data['cycle'], plan, (state, model), now, len(plan.T_base_gripper), result)

    def _decide(self, cycle: int, plan: Plan, robot: tuple[RobotState, RobotModel], now: int, k: int,
                result: TimedMotion | Refusal) -> None:
        if self._diary.recorder is not None:
            self._diary.recorder.plan(plan, robot[0], now, k, result)
        self.watcher.judged(plan, result)
        self._diary.lap('gates')
        if isinstance(result, Refusal):
            self._refuse(cycle, result)
            return
        self._judged = Judged(plan, result, World(robot[1], self.port.scene))
        self._diary.summary.update({
            'observation_age_s': (now - plan.observation_stamp) * 1e-9, 'gate_values': result.gate_values,
            'poses': result.poses, 'truncated_by': result.truncated_by.reason.code if result.truncated_by else None})
        self.handle(EventKind.PLANNED, cycle=cycle, **describe(plan, result))

    def _refuse(self, cycle: int, refusal: Refusal) -> None:
        self._diary.summary['refusal'] = refusal.to_json()
        self.watcher.refused(refusal)
        if refusal.reason.kind is Kind.FAULT:
            self.fault(refusal)
        else:
            self.handle(EventKind.REFUSED, cycle=cycle, reason=refusal.reason.code, detail=refusal.detail)

    def _ask_approval(self, data: ActionData) -> None:
        self.watcher.said(Refusal(Reason.APPROVAL_AWAITED, f'/geo4d/approve with plan id {data["plan_id"]}'))

    # --- motion: the one place that commands it ---

    def _execute(self, data: ActionData) -> None:
        self._to_send = self.port.clock(), data
        self._wait_to_send()

    def _wait_to_send(self) -> None:
        """Send the segment once every check holds; what may pass by itself has a moment for it."""
        if self._to_send is None or self.phase is not Phase.EXECUTING:
            return
        since, data = self._to_send
        refusal = self._check_segment(data)
        if refusal is not None and refusal.reason in PASSING and self.port.clock() - since < PATIENCE:
            return
        self._to_send = None
        if refusal is not None:
            self._refuse(self.state.cycle, refusal)
        elif self.port.stop_asked():
            self.handle(EventKind.STOP)
        else:
            self._send(data)

    def _check_segment(self, data: ActionData) -> Refusal | None:
        """Why the segment must not be sent now. The same for the first, the later ones and the gripper's."""
        judged = self._judged
        if judged is None or judged.plan.id != data['plan_id']:
            return Refusal(Reason.INTERNAL_ERROR, f'no checked motion of plan {data["plan_id"]!r}')
        if not self.loop.config.auto and self._approved != judged.plan.id:
            return Refusal(Reason.APPROVAL_MISSING, judged.plan.id)
        state = self.port.robot_state(self.state.gripper_closed)
        changed = judged.world.check_same(self.port.model, self.port.scene) or self._check_world()
        if changed is not None:
            return changed
        if isinstance(state, Refusal):
            return state
        return check_segment(judged, data['index'], state, self.port.at_rest(0.0), self._limits, self.port.stamp())

    def _send(self, data: ActionData) -> None:
        assert self._judged is not None  # checked a moment ago
        motion, index = self._judged.motion, data['index']
        segment = motion.segments[index]
        if index == 0:
            self._diary.lap('approve')
        if isinstance(segment, GripperSegment):
            before = self.port.robot_state(None)
            self.port.grip(segment, lambda refusal: self._gripped(data, segment, before, refusal))
            return
        if self.state.recovery is None:
            self._trail.follow(motion.T_path)
        self.port.move(segment, lambda refusal: self._ended(data, refusal))

    def _gripped(self, data: ActionData, segment: GripperSegment, before: RobotState | Refusal,
                 refusal: Refusal | None) -> None:
        """Fingers that could not open all the way may have let go all the same."""
        stuck = refusal is not None and refusal.reason is Reason.GRIPPER_FAILED and not segment.closing
        after = self.port.robot_state(None)
        if stuck and isinstance(before, RobotState) and isinstance(after, RobotState) \
                and let_go(before.opening, after.opening, self._limits):
            refusal = None
        if refusal is not None:
            self._ended(data, refusal)
        elif self._under_way(data):
            self._dwell_until = self.port.clock() + segment.dwell, data

    def _wait_for_dwell(self) -> None:
        if self._dwell_until is not None and self.port.clock() >= self._dwell_until[0]:
            data, self._dwell_until = self._dwell_until[1], None
            self._ended(data, None)

    def _under_way(self, data: ActionData) -> bool:
        return self.phase is Phase.EXECUTING and (data['plan_id'], data['index']) == (self.state.plan_id,
                                                                                       self.state.segment)

    def _ended(self, data: ActionData, refusal: Refusal | None) -> None:
        """A segment is over; without a measured robot nobody knows how it ended."""
        if not self._under_way(data):
            return
        state = self.port.robot_state(self.state.gripper_closed)
        if isinstance(state, Refusal):
            self._refuse(self.state.cycle, refusal or state)
        elif refusal is not None:
            self._refuse(self.state.cycle, refusal)
        else:
            self.handle(EventKind.SEGMENT_DONE, plan_id=data['plan_id'], index=data['index'], opening=state.opening,
                        position=self._position(state))

    def _await_standstill(self, data: ActionData) -> None:
        self._diary.lap('execute')
        self._rest_since = self.port.clock()

    def _wait_for_rest(self) -> None:
        if self.phase not in (Phase.SETTLING, Phase.STOPPING):
            self._rest_since = None
        if self._rest_since is not None and self.port.at_rest(self._rest_since):
            self._rest_since = None
            self._diary.lap('settle')
            self.handle(EventKind.STANDSTILL)

    def _stop(self, data: ActionData) -> None:
        """The one path to a stop. `escalate`: the arm did not come to rest, so it is also told to stand.

        Only where it is known to be: an old measurement would send it back to where it was.
        """
        self._forget()
        state = self.port.robot_state(None)
        self.port.stop(state.q if data['escalate'] and isinstance(state, RobotState) else None)
        self._rest_since = self.port.clock()

    def _report(self, data: ActionData) -> None:
        self.watcher.said(Refusal(Reason[data['reason']], data['detail']))
        self._diary.summary['report'] = data
        if self.phase in RESTING:
            self._diary.end_cycle()
