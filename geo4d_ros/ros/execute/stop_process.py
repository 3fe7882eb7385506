"""Stops the arm: a small second process of the executor that serves /geo4d/stop and outlives it.

Nothing that parses, plans or talks to cameras runs here, so that a stop waits for nobody: /geo4d/stop cancels every
goal of the controllers at once, then tells the executor through a pipe.

A trajectory controller runs a goal to its end even when the client that sent it was killed. The executor
therefore starts this process before its first motion and writes one byte to it every 0.1 s: `m` while a motion
may be running, `i` otherwise. A closed pipe (the executor is gone, however it died) or 2 s without a byte
during a motion (it hangs) makes the guardian cancel every goal of the controllers and publish MoveIt's stop
event, then say so on /geo4d/state and /diagnostics. It needs no configuration besides its arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

SILENCE = 2.0  # [s] without a byte during a motion: the executor hangs
BEAT = 0.1  # [s] between two bytes
AGAIN = 0.2  # [s] without an answer after which a controller is asked anew
BURST = 0.02  # [s] between two rounds of requests when many stops are called at once
PATIENCE = 3.0  # [s] after which a silent controller is named
INSIST = 30.0  # [s] the stop is repeated in all
LATE_GOAL = 0.4  # [s] after which a goal that was on its way when the executor died has arrived
STOP_SERVICE = 'geo4d/stop'
REJECTED = 1  # return code of action_msgs/srv/CancelGoal


class Guardian:
    """The executor's end: starts the process, `beat()` keeps it quiet, `close()` ends it."""

    def __init__(self, actions: list[str], motion_event: str = '', stop_service: str = STOP_SERVICE,
                 namespace: str = '/') -> None:
        self._stops, theirs = os.pipe()
        command = [sys.executable, '-m', 'geo4d_ros.ros.execute.stop_process', '--stop-service', stop_service,
                   '--tell', str(theirs), '--namespace', namespace, '--actions', *actions]
        if motion_event:
            command += ['--event-topic', motion_event]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, pass_fds=(theirs,))
        os.close(theirs)
        os.set_blocking(self._stops, False)
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def pid(self) -> int:
        """Process id of the guardian."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the guardian runs; without it no motion should begin."""
        return self._process.poll() is None

    def take_stop(self) -> bool:
        """Whether the operator called /geo4d/stop since the last time; ask before every goal and in every tick."""
        with contextlib.suppress(BlockingIOError, OSError):
            return bool(os.read(self._stops, 65536))
        return False

    def beat(self, moving: bool) -> None:
        """Tell that the executor lives and whether a motion may be running."""
        try:
            os.write(self._process.stdin.fileno(), b'm' if moving else b'i')
        except (BrokenPipeError, BlockingIOError):
            return  # `alive` tells the caller

    def close(self, stop: bool = False) -> None:
        """End the guardian; with `stop` it first stops the arm, as if the executor had died.

        It does that on its own: the executor does not wait for it.
        """
        if stop or not self.alive:
            self._process.stdin.close()
        else:
            self._say_goodbye()
            try:
                self._process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        os.close(self._stops)
        self._stops = -1

    def _say_goodbye(self) -> None:
        """Tell that the executor leaves in order."""
        try:
            os.write(self._process.stdin.fileno(), b'q')
        except (BrokenPipeError, BlockingIOError):
            self._process.kill()
        self._process.stdin.close()


class Ear:
    """What the executor's pipe tells: `listen` returns why something is wrong, '' when it left in order, else None."""

    def __init__(self, fd: int) -> None:
        self._fd, self._moving, self._heard = fd, False, time.monotonic()

    def listen(self, seconds: float) -> str | None:
        """Wait for news for up to so long."""
        ready, _, _ = select.select([self._fd], [], [], seconds)
        if ready:
            data = os.read(self._fd, 4096)
            if not data:
                return 'the executor died'
            if b'q' in data:
                return ''
            self._moving, self._heard = data[-1:] == b'm', time.monotonic()
        elif self._moving and time.monotonic() - self._heard > SILENCE:
            return 'the executor hangs'
        return None


class Stop:
    """The order to cancel everything, repeated on a fresh request until each controller has answered it.

    clients: action name -> client of its cancel service. A server can be known before the way of its answers is: the
    answer to the first request may be lost, and only another request brings another answer.
    """

    def __init__(self, clients: Mapping[str, Any], request: Any) -> None:
        self._clients, self._request = clients, request
        self._asked = dict.fromkeys(clients, -AGAIN)
        self._futures: dict[str, list[Any]] = {name: [] for name in clients}
        self.answered: set[str] = set()
        self.rejected: set[str] = set()

    @property
    def silent(self) -> list[str]:
        """Controllers that have not answered yet, or say that they do not stop."""
        return sorted((set(self._clients) - self.answered) | self.rejected)

    def poll(self, now: float) -> bool:
        """Send what is due and read what has come at steady time `now` [s]; whether every controller stops."""
        for name, client in self._clients.items():
            if name in self.answered and name not in self.rejected:
                continue
            for future in self._futures[name]:
                if future.done() and future.exception() is None:
                    self.answered.add(name)
                    (self.rejected.add if future.result().return_code == REJECTED else self.rejected.discard)(name)
            if name in self.answered and name not in self.rejected:
                self._forget(name, client)
            elif now - self._asked[name] >= AGAIN and client.service_is_ready():
                self._asked[name] = now
                self._futures[name] = [f for f in self._futures[name] if not f.done()]
                self._futures[name].append(client.call_async(self._request))
        return not self.silent

    def forget(self) -> None:
        """Wait for no answer any more."""
        for name, client in self._clients.items():
            self._forget(name, client)

    def _forget(self, name: str, client: Any) -> None:
        for future in self._futures[name]:
            if not future.done():
                client.remove_pending_request(future)
        self._futures[name] = []


class StopNode:
    """The process's node: the service, the cancel clients, MoveIt's stop event, the voice when the executor is gone."""

    def __init__(self, actions: list[str], event_topic: str, service: str, tell: int,
                 namespace: str = '/') -> None:
        import rclpy
        from action_msgs.srv import CancelGoal
        from rclpy.executors import SingleThreadedExecutor
        from std_msgs.msg import String
        from std_srvs.srv import Trigger

        from geo4d_ros.ros.serve.qos import SERVICE_QOS

        self.node = rclpy.create_node('plan_executor_guardian', namespace=namespace, use_global_arguments=False,
                                      start_parameter_services=False)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._clients = {name: self.node.create_client(CancelGoal, f'{name}/_action/cancel_goal') for name in actions}
        # A request with a zero id and a zero stamp cancels all goals (action_msgs/srv/CancelGoal).
        self._request, self._word = CancelGoal.Request(), String(data='stop')
        self._event = self.node.create_publisher(String, event_topic, 1) if event_topic else None
        self._tell, self._begun, self._again = tell, 0.0, False
        self._stop: Stop | None = None
        if service:
            self.node.create_service(Trigger, service, self._operator, qos_profile=SERVICE_QOS)

    def _operator(self, request: Any, response: Any) -> Any:
        """/geo4d/stop: first the controllers, then the executor, then the answer."""
        if time.monotonic() - self._begun >= BURST:
            self._begin()
        else:
            self._again = True  # one of many calls at once: the next round is for all of them
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._tell, b's')
        response.success, response.message = True, json.dumps({'stopping': sorted(self._clients)})
        return response

    def _begin(self) -> None:
        if self._stop is not None:
            self._stop.forget()
        self._stop, self._begun, self._again = Stop(self._clients, self._request), time.monotonic(), False
        if self._event is not None:
            self._event.publish(self._word)
        self._stop.poll(self._begun)

    def spin(self, seconds: float = 0.02) -> None:
        """Serve, and go on with a stop that is under way."""
        self._executor.spin_once(timeout_sec=seconds)
        if self._again and time.monotonic() - self._begun >= BURST:
            self._begin()
        if self._stop is not None and (self._stop.poll(time.monotonic())
                                       or time.monotonic() - self._begun > PATIENCE):
            if self._stop.silent:
                self.node.get_logger().error(f'{", ".join(self._stop.silent)} did not answer the stop')
            self._stop = None

    def stop_everything(self, why: str) -> bool:
        """The executor is gone: stop, say so, and again a moment later for a goal that was still on its way."""
        begun, said = time.monotonic(), ''
        self._begin()
        stop = self._stop
        assert stop is not None
        while not stop.poll(time.monotonic()) and time.monotonic() - begun < INSIST:
            self._executor.spin_once(timeout_sec=0.02)
            if not said and time.monotonic() - begun > PATIENCE:
                said = f'{why}; {", ".join(stop.silent)} did not answer: use the emergency stop'
                self._say(said, 1)
        if not stop.silent:
            self._second_round(begun)
        self._say(f'{why}; its motion was cancelled' if not stop.silent else
                  said or f'{why}; {", ".join(stop.silent)} did not answer: use the emergency stop', 10)
        return not stop.silent

    def _second_round(self, begun: float) -> None:
        while time.monotonic() - begun < LATE_GOAL:
            self._executor.spin_once(timeout_sec=0.02)
        self._begin()
        again, until = self._stop, time.monotonic() + PATIENCE
        assert again is not None
        while not again.poll(time.monotonic()) and time.monotonic() < until:
            self._executor.spin_once(timeout_sec=0.02)

    def _say(self, text: str, times: int) -> None:
        """Publish the fault where the executor would have: its own voice is gone."""
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
        from rclpy.qos import DurabilityPolicy, QoSProfile
        from std_msgs.msg import String

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        state = self.node.create_publisher(String, 'geo4d/state', latched)
        diagnostics = self.node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        status = DiagnosticStatus(level=DiagnosticStatus.ERROR, name='plan_executor', message=text,
                                  hardware_id='geo4d')
        report = DiagnosticArray(status=[status])
        report.header.stamp = self.node.get_clock().now().to_msg()
        for _ in range(times):
            state.publish(String(data=json.dumps({'state': 'FAULT', 'reason': 'PEER_DEAD', 'detail': text})))
            diagnostics.publish(report)
            self._executor.spin_once(timeout_sec=0.1)
            time.sleep(0.05)
        self.node.get_logger().error(text)

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()


def main() -> int:
    """Run as `python -m geo4d_ros.ros.execute.stop_process`; started by `Guardian`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--actions', nargs='*', default=[], help='action names whose goals are cancelled')
    parser.add_argument('--event-topic', default='', help="MoveIt's trajectory execution event topic")
    parser.add_argument('--stop-service', default='', help="name of the operator's stop")
    parser.add_argument('--tell', type=int, default=-1, help='file descriptor on which the executor hears of a stop')
    parser.add_argument('--namespace', default='/', help="the executor's namespace")
    args = parser.parse_args()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    with contextlib.suppress(PermissionError):  # before anything else that is ready to run, where the user may
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    if args.tell >= 0:
        os.set_blocking(args.tell, False)
    # Signals meant for the executor end this process through the pipe, never before the executor is gone.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = StopNode(args.actions, args.event_topic, args.stop_service, args.tell, args.namespace)
    ear, why = Ear(sys.stdin.fileno()), None
    while why is None:
        node.spin()
        why = ear.listen(0.0)
    stopped = node.stop_everything(why) if why else True
    node.close()
    rclpy.try_shutdown()
    return 0 if stopped else 1


if __name__ == '__main__':
    sys.exit(main())
