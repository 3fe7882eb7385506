"""The node `plan_executor`: the only one that moves the robot. It starts in a dry run unless told otherwise."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from geo4d_interfaces.srv import Approve
from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from geo4d_ros.errors import Geo4dError, NodeFailure
from geo4d_ros.loop.driver import Driver
from geo4d_ros.loop.events import ActionKind, EventKind
from geo4d_ros.loop.machine import RESTING, Phase
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.ros.execute.actions import GripperClient, Patience, TrajectoryClient
from geo4d_ros.ros.execute.executor_parameters import (
    ExecutorParameters,
    finger_motion,
    loop_config,
    motion_limits,
    robot_model,
    scene,
)
from geo4d_ros.ros.execute.plan_inbox import PlanInbox
from geo4d_ros.ros.execute.port import RosPort
from geo4d_ros.ros.execute.predictor_client import PredictClient
from geo4d_ros.ros.execute.run_action import RunAction
from geo4d_ros.ros.execute.status import Status
from geo4d_ros.ros.execute.stop_process import STOP_SERVICE, Guardian
from geo4d_ros.ros.observe.camera_names import camera_names
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.observe.robot_monitor import CameraMonitor, RobotMonitor
from geo4d_ros.ros.serve import diagnostics
from geo4d_ros.ros.serve.lifecycle import ManagedNode
from geo4d_ros.ros.serve.liveness import PeerMonitor, announce
from geo4d_ros.ros.serve.parameters import NodeParameters
from geo4d_ros.ros.serve.spin import run_node
from geo4d_ros.ros.wire.guard import Boundary

TICK = 0.04  # [s]


class PlanExecutor(ManagedNode):
    """Action geo4d/run, services geo4d/start, step, approve, reset (stop: its guardian's); topic geo4d/state."""

    def __init__(self) -> None:
        super().__init__('plan_executor')
        self.parameters = NodeParameters(self, ExecutorParameters, locked=self._under_way)
        self.diagnostics = diagnostics.Diagnostics(self)

    def set_up(self) -> None:
        """Find the robot, start the guardian: everything but permission to run."""
        p = self.parameters.values
        motion_limits(p), scene(p), loop_config(p)  # contradictions are told now, not on the first start
        self.boundary = Boundary(self, self.diagnostics)
        patience = Patience(p.answer_seconds, p.feedback_silence)
        gripper = GripperClient(self, p.gripper_action, p.gripper_type, p.gripper_joint,
                                finger_motion(p), p.gripper_effort, patience)
        self._senses = Receiver(self, 'senses', clock=True)
        self.owned.callback(self._senses.close)
        robot = RobotMonitor(self.boundary, p.arm_joints, p.gripper_joint, gripper.opening, self._build_model,
                             p.joint_state_silence, self._senses)
        arm = TrajectoryClient(self, p.arm_action, p.arm_joints, p.tracking_error, patience)
        stop_topic = ''
        if p.motion == 'moveit':
            from geo4d_ros.ros.execute.moveit import STOP_TOPIC, MoveItClient

            stop_topic = self.resolve_topic_name(STOP_TOPIC)
            arm = MoveItClient(self, arm, robot, p.moveit_group, p.tool_frame, p.base_frame,
                               lambda: motion_limits(self.parameters.values), scene(p))
        cameras = CameraMonitor(self._senses.clock, self.boundary, camera_names(p), self._senses)
        inbox = PlanInbox(self, self.boundary, p.base_frame)
        self.port = RosPort(self._senses.clock, robot, cameras, PredictClient(self), inbox, arm, gripper,
                            (p.camera_silence, p.joint_state_silence), lambda: self._peers.missing)
        self.status = Status(self, self.diagnostics, lambda: self.parameters.values)
        self.driver = self.status.driver = Driver(self.port, self.status)
        self._peers = PeerMonitor(self, p.peers, self._peer_lost, p.peer_silence)
        for name, handler in (('start', self._start), ('step', self._step), ('reset', self._reset)):
            self.boundary.service(Trigger, f'geo4d/{name}', handler, _failed)
        self.boundary.service(Approve, 'geo4d/approve', self._approve, _not_approved)
        self._run = RunAction(self, self.driver, self.status, self._run_task)
        # On the steady clock: with simulated time a stopped clock would stop the watchdogs too.
        self.create_timer(TICK, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._alive = announce(self)
        self._start_guardian = lambda: Guardian([*arm.actions, *gripper.actions], stop_topic,
                                                self.resolve_service_name(STOP_SERVICE), self.get_namespace())
        self.port.guardian = self._start_guardian()
        self.owned.callback(self._leave)
        self.status.changed(None)
        self._senses.start()

    def _under_way(self) -> str:
        """What forbids to change parameters now."""
        driver = getattr(self, 'driver', None)
        running = driver is not None and driver.phase not in RESTING
        return f'a run is under way ({driver.phase.value})' if running else ''

    def _tick(self) -> None:
        try:
            self.driver.tick()
        except Exception as error:  # without its watchdogs nothing may move: the guardian stops the arm
            raise NodeFailure(f'the watchdogs failed: {type(error).__name__}: {error}') from error

    def _build_model(self, urdf: str) -> RobotModel:
        p = self.parameters.values
        # Where package:// in the description points to.
        shares = [f'{prefix}/share' for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep) if prefix]
        return robot_model(p, urdf, shares)

    # --- the operator ---

    def _start(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, self._begin(EventKind.START))

    def _step(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return self._answer(response, self._begin(EventKind.STEP))

    def _run_task(self, task: str, cycles: int) -> Refusal | None:
        return self._begin(EventKind.START, task, cycles)

    def _begin(self, kind: EventKind, task: str = '', cycles: int = 0) -> Refusal | None:
        if self.inactive:
            return self.inactive
        p, driver, port = self.parameters.values, self.driver, self.port
        try:
            if driver.phase in (Phase.IDLE, Phase.DONE):
                if not port.guardian.alive:  # it stopped the arm in our place, or was killed
                    port.guardian.close()
                    port.guardian = self._start_guardian()
                port.limits, port.scene, port.instruction = motion_limits(p), scene(p), task
                config = loop_config(p)
                driver.configure(replace(config, max_cycles=cycles) if cycles else config, port.limits, p.poses)
            path = Path(p.record_directory) / f'run-{time.strftime("%Y%m%d-%H%M%S")}-{time.monotonic_ns()}.jsonl'
            return driver.begin(kind, path if p.record_directory else None, p.seed)
        except Geo4dError as error:
            return Refusal(Reason.INTERNAL_ERROR, str(error))

    def _approve(self, request: Approve.Request, response: Approve.Response) -> Approve.Response:
        refusal = self.driver.approve(request.plan_id)
        response.success = refusal is None
        if refusal is not None:
            response.reason, response.detail = refusal.reason.code, refusal.detail
        return response

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        refused = [a.data for a in self.driver.handle(EventKind.RESET) if a.kind is ActionKind.REPORT]
        return self._answer(response, Refusal(Reason[refused[0]['reason']], refused[0]['detail']) if refused else None)

    def _answer(self, response: Trigger.Response, refusal: Refusal | None) -> Trigger.Response:
        response.success = refusal is None
        values = self.status.values() if refusal is None else {'code': refusal.reason.code, 'detail': refusal.detail}
        response.message = json.dumps(values)
        return response

    def _peer_lost(self, name: str) -> None:
        self.driver.fault(Refusal(Reason.PEER_DEAD, name))

    def stand_down(self) -> None:
        """Not active any more: what runs is stopped as by /geo4d/stop, and watched until it rests."""
        if self._under_way():
            self.driver.handle(EventKind.STOP)

    def unfinished(self) -> str:
        """The arm comes to rest before its watchdogs go."""
        return self._under_way() or ('the goal of /geo4d/run is being answered' if self._run.running else '')

    def _leave(self) -> None:
        """With the arm at rest; if it is not, the guardian is left to stop it."""
        self.driver.close_record()
        self.port.guardian.close(stop=self.driver.phase not in RESTING)


def _failed(response: Trigger.Response, cause: str) -> Trigger.Response:
    response.success, response.message = False, json.dumps({'code': Reason.INTERNAL_ERROR.code, 'detail': cause})
    return response


def _not_approved(response: Approve.Response, cause: str) -> Approve.Response:
    response.reason, response.detail = Reason.INTERNAL_ERROR.code, cause
    return response


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `plan_executor`."""
    return run_node(PlanExecutor, args)


if __name__ == '__main__':
    sys.exit(main())
