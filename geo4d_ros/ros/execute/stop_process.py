"""Stops the arm when the executor dies: a small second process that holds the other end of a pipe.

A trajectory controller runs a goal to its end even when the client that sent it was killed. The executor
therefore starts this process before its first motion and writes one byte to it every 0.1 s: `m` while a motion
may be running, `i` otherwise. A closed pipe (the executor is gone, however it died) or 2 s without a byte
during a motion (it hangs) makes the guardian cancel every goal of the controllers and publish MoveIt's stop
event, then say so on /geo4d/state and /diagnostics. It needs no configuration besides its arguments.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import time

SILENCE = 2.0  # [s] without a byte during a motion: the executor hangs
BEAT = 0.1  # [s] between two bytes
INSIST = 2.0  # [s] the stop is repeated until a controller has answered


class Guardian:
    """The executor's end: starts the process, `beat()` keeps it quiet, `close()` ends it."""

    def __init__(self, actions: list[str], motion_event: str = '') -> None:
        command = [sys.executable, '-m', 'geo4d_ros.ros.execute.stop_process', '--actions', *actions]
        if motion_event:
            command += ['--event-topic', motion_event]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def pid(self) -> int:
        """Process id of the guardian."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the guardian runs; without it no motion should begin."""
        return self._process.poll() is None

    def beat(self, moving: bool) -> None:
        """Tell that the executor lives and whether a motion may be running."""
        try:
            os.write(self._process.stdin.fileno(), b'm' if moving else b'i')
        except (BrokenPipeError, BlockingIOError):
            return  # `alive` tells the caller

    def close(self, stop: bool = False) -> None:
        """End the guardian; with `stop` it first stops the arm, as if the executor had died.

        It does that on its own: the executor does not wait for it (some three seconds at most).
        """
        if stop or not self.alive:
            self._process.stdin.close()
            return
        self._say_goodbye()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _say_goodbye(self) -> None:
        """Tell that the executor leaves in order."""
        try:
            os.write(self._process.stdin.fileno(), b'q')
        except (BrokenPipeError, BlockingIOError):
            self._process.kill()
        self._process.stdin.close()


def watch(fd: int) -> str:
    """Block until something is wrong (why, in words) or the executor leaves in order ('')."""
    moving, heard = False, time.monotonic()
    while True:
        ready, _, _ = select.select([fd], [], [], 0.05)
        if ready:
            data = os.read(fd, 4096)
            if not data:
                return 'the executor died'
            if b'q' in data:
                return ''
            moving, heard = data[-1:] == b'm', time.monotonic()
        elif moving and time.monotonic() - heard > SILENCE:
            return 'the executor hangs'


def stop_everything(node, clients: list, event, why: str) -> bool:
    """Cancel all goals of all controllers and publish the stop event, until each controller in reach answered."""
    import rclpy
    from action_msgs.srv import CancelGoal
    from std_msgs.msg import String

    pending, answered, end = {}, set(), time.monotonic() + INSIST
    while time.monotonic() < end and len(answered) < len(clients):
        if event is not None:
            event.publish(String(data='stop'))
        for client in clients:
            if client in answered or not client.service_is_ready():
                continue
            if client not in pending or pending[client].done():
                # A request with a zero id and a zero stamp cancels all goals (action_msgs/srv/CancelGoal).
                pending[client] = client.call_async(CancelGoal.Request())
        for _ in range(5):
            rclpy.spin_once(node, timeout_sec=0.01)
        answered |= {client for client, future in pending.items() if future.done()}
    say_so(node, why, len(answered) == len(clients))
    return len(answered) == len(clients)


def say_so(node, why: str, stopped: bool) -> None:
    """Publish the fault where the executor would have: its own voice is gone."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from std_msgs.msg import String

    text = f'{why}; ' + ('its motion was cancelled' if stopped else 'no controller answered: use the emergency stop')
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    state = node.create_publisher(String, '/geo4d/state', latched)
    diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
    status = DiagnosticStatus(level=DiagnosticStatus.ERROR, name='plan_executor', message=text, hardware_id='geo4d')
    report = DiagnosticArray(status=[status])
    report.header.stamp = node.get_clock().now().to_msg()
    for _ in range(10):
        state.publish(String(data=json.dumps({'state': 'FAULT', 'reason': 'PEER_DEAD', 'detail': text})))
        diagnostics.publish(report)
        rclpy.spin_once(node, timeout_sec=0.1)
    node.get_logger().error(text)


def main() -> int:
    """Run as `python -m geo4d_ros.ros.execute.stop_process`; started by `Guardian`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--actions', nargs='*', default=[], help='action names whose goals are cancelled')
    parser.add_argument('--event-topic', default='', help="MoveIt's trajectory execution event topic")
    args = parser.parse_args()
    import rclpy
    from action_msgs.srv import CancelGoal
    from rclpy.signals import SignalHandlerOptions
    from std_msgs.msg import String

    # Signals meant for the executor end this process through the pipe, never before the executor is gone.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node('plan_executor_guardian')
    clients = [node.create_client(CancelGoal, f'{name}/_action/cancel_goal') for name in args.actions]
    event = node.create_publisher(String, args.event_topic, 1) if args.event_topic else None
    why = watch(sys.stdin.fileno())
    stopped = stop_everything(node, clients, event, why) if why else True
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if stopped else 1


if __name__ == '__main__':
    sys.exit(main())
