"""Carries out what the state machine decides, over ROS, and tells it what happened.

Everything runs in the node's one executor thread and nothing blocks, except planning (some 50 ms, with the
arm at rest): a stop request waits for at most one short callback. Deadlines count on the steady clock, so a
simulation that stands still cannot freeze them; ages of data count on the node's clock, by message stamps.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.node import Node

from geo4d_ros.loop.events import Action, ActionKind, Event, EventKind
from geo4d_ros.loop.machine import RESTING, LoopConfig, Phase, Recovery
from geo4d_ros.loop.record import Loop, Recorder
from geo4d_ros.loop.recovery import Trail, plan_recovery, recovery_plans
from geo4d_ros.motion import gates
from geo4d_ros.motion.collision import Scene
from geo4d_ros.motion.gripper_segments import GripperSegment, let_go
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import RobotState, TimedMotion, check_before_execution, describe, plan_trajectory
from geo4d_ros.reasons import Kind, Reason, Refusal
from geo4d_ros.ros.execute.actions import GripperClient
from geo4d_ros.ros.execute.predictor_client import PlanInbox, PredictClient, Reply
from geo4d_ros.ros.execute.stop_process import Guardian
from geo4d_ros.ros.observe.robot_monitor import CameraMonitor, ClockMonitor, RobotMonitor
from geo4d_ros.types import Plan

OBSERVE_PATIENCE = 1.0  # [s] that inputs which fail their gates have to become good
MOVING = (Phase.EXECUTING, Phase.SETTLING, Phase.STOPPING)  # phases in which the arm may have speed


class Execution:
    """The state machine wired to the cell.

    `handle` feeds one event and carries out all that follows; `tick` (20 Hz or more) runs the watchdogs.
    on_change(report) is called with the last report {'reason', 'detail'} or None after every event.
    `arm` is a TrajectoryClient or a MoveItClient.
    """

    def __init__(self, node: Node, robot: RobotMonitor, cameras: CameraMonitor, predictor: PredictClient,
                 arm: Any, gripper: GripperClient, base_frame: str, silence: tuple[float, float],
                 on_change: Callable[[dict[str, str] | None], None]) -> None:
        self.node, self.robot, self.cameras, self.predictor = node, robot, cameras, predictor
        self.arm, self.gripper = arm, gripper
        self.inbox = PlanInbox(node, base_frame, self._on_plan)
        self.guardian: Guardian | None = None
        self.recorder: Recorder | None = None
        self.loop = Loop(LoopConfig())
        self._camera_silence, self._joint_silence = silence
        self._clock, self._on_change = ClockMonitor(node), on_change
        self._limits, self._scene, self._poses = MotionLimits(), Scene(), 5
        self._trail = Trail()
        self._events: deque[Event] = deque()
        self._busy = False
        self._beat = 0.0
        self._forget()

    def _forget(self) -> None:
        """No answer is awaited any more."""
        self._observe_since: float | None = None
        self._rest_since: float | None = None
        self._dwell_until: tuple[float, dict[str, Any]] | None = None
        self._reply: Reply | None = None
        self._plan: Plan | None = None
        self._motion: TimedMotion | None = None
        self._summary: dict[str, Any] = {}
        self._stage = time.monotonic()

    # --- the operator's side ---

    @property
    def phase(self) -> Phase:
        """Where the loop is."""
        return self.loop.state.phase

    def configure(self, config: LoopConfig, limits: MotionLimits, scene: Scene, poses: int) -> None:
        """Settings of the next run; only while the loop rests."""
        state, self._limits, self._scene, self._poses = self.loop.state, limits, scene, poses
        self.loop = Loop(config)
        self.loop.state = state

    def record(self, path: Path | None, seed: int) -> None:
        """Write the coming run into a new file, or into none. Raises ConfigurationError where it cannot."""
        self.close_record()
        if path is not None:
            self.recorder = Recorder(path)
            self.recorder.header(self.loop.config, self._limits, self._scene, self.robot.require_model(), seed)
        state, self.loop = self.loop.state, Loop(self.loop.config, self.recorder)
        self.loop.state = state

    def close_record(self) -> None:
        """End the record, when there is one."""
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None

    def not_ready(self, missing_peers: list[str]) -> Refusal | None:
        """Why no run may begin now."""
        if self.robot.model is None:
            return Refusal(Reason.ROBOT_STATE_INVALID, self.robot.model_error)
        if self.robot.silence > self._joint_silence:
            return Refusal(Reason.JOINT_STATES_STALLED, 'nothing usable on /joint_states')
        if missing_peers:
            return Refusal(Reason.PEER_DEAD, f'{", ".join(missing_peers)} not running')
        if not self.predictor.ready:  # a node can be known before its services are
            return Refusal(Reason.PEER_DEAD, 'no /geo4d/predict service')
        if not self.loop.config.dry_run:
            absent = [name for part in (self.arm, self.gripper) if not part.ready for name in part.actions]
            if absent:
                return Refusal(Reason.BACKEND_UNAVAILABLE, f'no server of {", ".join(absent)}')
            if self.guardian is None or not self.guardian.alive:
                return Refusal(Reason.PEER_DEAD, 'the guardian process does not start')
        return self.cameras.check_silence(self._camera_silence)

    # --- events in, actions out ---

    def handle(self, kind: EventKind, **data: Any) -> tuple[Action, ...]:
        """Feed an event; returns what the state machine answered to it."""
        self._events.append(Event(kind, time.monotonic(), data))
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
                    self._on_change(report)
        finally:
            self._busy = False
        return first or ()

    def _carry_out(self, action: Action) -> None:
        """Do what the state machine says; an error in it stops the arm, an error in that ends the node."""
        try:
            _CARRY_OUT[action.kind](self, action.data)
        except Exception as error:
            if action.kind in (ActionKind.STOP, ActionKind.REPORT):
                raise  # the guardian stops the arm
            self.node.get_logger().error(traceback.format_exc())
            detail = f'{action.kind.value}: {type(error).__name__}: {error}'
            self._events.append(Event(EventKind.FAULT, time.monotonic(),
                                      {'reason': Reason.INTERNAL_ERROR.code, 'detail': detail}))

    def fault(self, refusal: Refusal) -> None:
        """A watchdog or a backend found something wrong."""
        self.handle(EventKind.FAULT, reason=refusal.reason.code, detail=refusal.detail)

    def tick(self) -> None:
        """Watchdogs, waits and the guardian's heartbeat."""
        self.arm.poll()
        self.gripper.poll()
        if self.phase not in RESTING:
            self._watch()
        else:
            self._clock.check()
        self._wait_for_observation()
        self._wait_for_rest()
        self._wait_for_dwell()
        self.handle(EventKind.TICK)
        now = time.monotonic()
        if self.guardian is not None and now - self._beat > 0.09:
            self._beat = now
            self.guardian.beat(self.phase in MOVING)

    def _watch(self) -> None:
        refusal = self._clock.check() or self.cameras.check_silence(self._camera_silence)
        if refusal is None and self.robot.silence > self._joint_silence:
            refusal = Refusal(Reason.JOINT_STATES_STALLED, f'{self.robot.silence:.2f} s')
        if refusal is None and self.guardian is not None and not self.guardian.alive:
            refusal = Refusal(Reason.PEER_DEAD, 'guardian')
        if refusal is not None and not (self.phase is Phase.STOPPING and self.loop.state.latch):
            self.fault(refusal)

    # --- one method per action ---

    def _observe(self, data: dict[str, Any]) -> None:
        self._end_cycle()
        self._observe_since = time.monotonic()
        self._stamp_since = self.node.get_clock().now().nanoseconds
        self._summary = {'cycle': data['cycle'], 'stages_ms': {}}
        self._stage = time.monotonic()
        self._wait_for_observation()

    def _wait_for_observation(self) -> None:
        """OBSERVED once the arm rests and the newest pair is good; the generator then waits for a newer one."""
        if self._observe_since is None or self.phase is not Phase.OBSERVING:
            return
        state, model = self.robot.state(self.loop.state.gripper_closed), self.robot.model
        if state is None or model is None or not self.robot.at_rest(0.0):
            return
        refusal, heard = self.cameras.check_pair(0, self._limits)
        if not heard:
            return
        refusal = refusal or self._check_robot(state, model)
        if refusal is not None and time.monotonic() - self._observe_since < OBSERVE_PATIENCE:
            return  # the other camera's message may just not be here yet
        self._observe_since = None
        cycle = self.loop.state.cycle
        if refusal is not None:
            self._refuse(cycle, refusal)
            return
        self._lap('observe')
        self.handle(EventKind.OBSERVED, cycle=cycle, position=model.forward(state.q)[:3, 3].tolist(),
                    opening=state.opening)

    def _check_robot(self, state: RobotState, model: Any) -> Refusal | None:
        limits, now = self._limits, self.node.get_clock().now().nanoseconds
        return (self.robot.refusal() or gates.check_joint_state(state.q, state.dq, model.lower, model.upper)
                or gates.check_opening_state(state.opening, limits)
                or gates.check_age(state.stamp, now, limits.joint_state_age, limits.future_tolerance,
                                   Reason.JOINT_STATES_STALE))

    def _predict(self, data: dict[str, Any]) -> None:
        cycle, after = data['cycle'], self._stamp_since

        def done(reply: Reply | Refusal) -> None:
            if cycle != self.loop.state.cycle or self.phase is not Phase.PREDICTING:
                return  # too late: the loop has moved on
            if isinstance(reply, Reply) and reply.stamp <= after:
                reply = Refusal(Reason.OBSERVATION_STALE, 'the generator used images from before the arm came to rest')
            if isinstance(reply, Refusal):
                self._refuse(cycle, reply)
                return
            self._reply = reply
            self._lap('predict')
            self._summary.update(plan=reply.plan, observation_stamp=reply.stamp, reply=reply.values)
            self.handle(EventKind.PREDICTED, cycle=cycle)

        self.predictor.call(done)

    def _make_plan(self, data: dict[str, Any]) -> None:
        if self._reply is not None and self.inbox.complete(self._reply.stamp):
            self._on_plan(self._reply.stamp)

    def _on_plan(self, stamp: int) -> None:
        if self.phase is not Phase.PLANNING or self._reply is None or stamp != self._reply.stamp:
            return
        plan = self.inbox.take(stamp)
        self._lap('track')
        cycle = self.loop.state.cycle
        if isinstance(plan, Plan) and plan.id != self._reply.plan:
            plan = Refusal(Reason.PLAN_INVALID, f'plan {plan.id!r} for prediction {self._reply.plan!r}')
        if isinstance(plan, Refusal):
            self._refuse(cycle, plan)
        else:
            self._gate(cycle, plan)

    def _plan_recovery(self, data: dict[str, Any]) -> None:
        """A way out instead of a predicted path; judged by the same gates."""
        state, model = self.robot.state(self.loop.state.gripper_closed), self.robot.require_model()
        recovery, now = Recovery(data['recovery']), self.node.get_clock().now().nanoseconds
        plans = recovery_plans(recovery, f'recovery-{data["cycle"]}-{state.stamp}', model.forward(state.q),
                               state.opening, state.stamp, self._trail, self._limits, data['again'])
        plan, state, result = plan_recovery(plans, recovery, state, self._limits, self._scene, model, now)
        self._judged(data['cycle'], plan, state, now, len(plan.T_base_gripper), result)

    def _gate(self, cycle: int, plan: Plan) -> None:
        """Through all gates of the motion core; nothing else makes a motion."""
        state, now = self.robot.state(self.loop.state.gripper_closed), self.node.get_clock().now().nanoseconds
        result = plan_trajectory(plan, state, self._limits, self._scene, self.robot.require_model(), now, self._poses)
        self._judged(cycle, plan, state, now, self._poses, result)

    def _judged(self, cycle: int, plan: Plan, state: RobotState, now: int, k: int,
                result: TimedMotion | Refusal) -> None:
        if self.recorder is not None:
            self.recorder.plan(plan, state, now, k, result)
        self._lap('gates')
        if isinstance(result, Refusal):
            self._refuse(cycle, result)
            return
        self._plan, self._motion = plan, result
        self._summary.update(observation_age_s=(now - plan.observation_stamp) * 1e-9, gate_values=result.gate_values,
                             poses=result.poses, truncated_by=result.truncated_by and result.truncated_by.reason.code)
        self.handle(EventKind.PLANNED, cycle=cycle, **describe(plan, result))

    def _refuse(self, cycle: int, refusal: Refusal) -> None:
        self._summary['refusal'] = refusal.to_json()
        if refusal.reason.kind is Kind.FAULT:
            self.fault(refusal)
        else:
            self.handle(EventKind.REFUSED, cycle=cycle, reason=refusal.reason.code, detail=refusal.detail)

    def _ask_approval(self, data: dict[str, Any]) -> None:
        self.node.get_logger().info(f'plan {data["plan_id"]} waits for /geo4d/approve')

    def _execute(self, data: dict[str, Any]) -> None:
        if self.guardian is not None and self.guardian.take_stop():
            self.handle(EventKind.STOP)
            return
        motion, index = self._motion, data['index']
        segment = motion.segments[index]
        if isinstance(segment, GripperSegment):
            before = self.robot.state(None).opening
            self.gripper.grip(segment, lambda refusal: self._gripped(data, segment, before, refusal))
            return
        state = self.robot.state(self.loop.state.gripper_closed)
        now = self.node.get_clock().now().nanoseconds
        moved = check_before_execution(motion, index, state, self._limits, now)
        if moved is not None:
            self._refuse(self.loop.state.cycle, moved)
            return
        if self.loop.state.recovery is None:
            self._trail.follow(motion.T_path)
        if index == 0:
            self._lap('approve')
        self.arm.move(segment, lambda refusal: self._moved(data, refusal))

    def _moved(self, data: dict[str, Any], refusal: Refusal | None) -> None:
        if refusal is None:
            self._segment_done(data)
        elif refusal.reason.kind is Kind.FAULT:
            self.fault(refusal)
        else:
            self._refuse(self.loop.state.cycle, refusal)  # MoveIt found no good path: nothing was sent

    def _gripped(self, data: dict[str, Any], segment: GripperSegment, before: float, refusal: Refusal | None) -> None:
        stuck = refusal is not None and refusal.reason is Reason.GRIPPER_FAILED and not segment.closing
        if stuck and let_go(before, self.robot.state(None).opening, self._limits):
            refusal = None
        if refusal is not None:
            self._refuse(self.loop.state.cycle, refusal)
        else:
            self._dwell_until = time.monotonic() + segment.dwell, data

    def _wait_for_dwell(self) -> None:
        if self._dwell_until is not None and time.monotonic() >= self._dwell_until[0]:
            data, self._dwell_until = self._dwell_until[1], None
            self._segment_done(data)

    def _segment_done(self, data: dict[str, Any]) -> None:
        state = self.robot.state(self.loop.state.gripper_closed)
        self.handle(EventKind.SEGMENT_DONE, plan_id=data['plan_id'], index=data['index'], opening=state.opening)

    def _await_standstill(self, data: dict[str, Any]) -> None:
        self._lap('execute')
        self._rest_since = time.monotonic()

    def _wait_for_rest(self) -> None:
        if self.phase not in (Phase.SETTLING, Phase.STOPPING):
            self._rest_since = None
        if self._rest_since is not None and self.robot.at_rest(self._rest_since):
            self._rest_since = None
            self._lap('settle')
            self.handle(EventKind.STANDSTILL)

    def _stop(self, data: dict[str, Any]) -> None:
        """The one path to a stop: every goal of arm and gripper is cancelled, whoever sent it.

        When that did not bring the arm to rest (`escalate`), the controller is also told to stand where it is,
        provided that is known: an old measurement would send the arm back to where it was.
        """
        self.arm.stop()
        self.gripper.stop()
        state = self.robot.state(None)
        if data['escalate'] and state is not None and self.robot.silence <= self._joint_silence:
            self.arm.hold(state.q)
        self._observe_since = self._dwell_until = self._reply = self._motion = None
        self._rest_since = time.monotonic()

    def _report(self, data: dict[str, Any]) -> None:
        reason = Reason[data['reason']]
        text = Refusal(reason, data['detail']).message
        # Two statements: rclpy refuses a line that logs with more than one severity.
        if reason.kind is Kind.FAULT:
            self.node.get_logger().error(text)
        else:
            self.node.get_logger().info(text)
        self._summary['report'] = data
        if self.phase in RESTING:
            self._end_cycle()

    # --- the record of a cycle ---

    def _lap(self, stage: str) -> None:
        now = time.monotonic()
        self._summary.setdefault('stages_ms', {})[stage] = (now - self._stage) * 1e3
        self._stage = now

    def _end_cycle(self) -> None:
        if self.recorder is not None and 'cycle' in self._summary:
            self.recorder.cycle(**self._summary)
        self._summary = {}


_CARRY_OUT: dict[ActionKind, Callable[[Execution, dict[str, Any]], None]] = {
    ActionKind.OBSERVE: Execution._observe,
    ActionKind.PREDICT: Execution._predict,
    ActionKind.PLAN: Execution._make_plan,
    ActionKind.PLAN_RECOVERY: Execution._plan_recovery,
    ActionKind.ASK_APPROVAL: Execution._ask_approval,
    ActionKind.EXECUTE: Execution._execute,
    ActionKind.AWAIT_STANDSTILL: Execution._await_standstill,
    ActionKind.STOP: Execution._stop,
    ActionKind.REPORT: Execution._report,
}
