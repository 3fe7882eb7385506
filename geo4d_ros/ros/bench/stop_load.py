"""The processes around a timed stop: a controller that notes cancels, and three kinds of load.

`python -m geo4d_ros.ros.bench.stop_load controller|images|plans|calls [FILE]`; started by `bench.stop`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from action_msgs.srv import CancelGoal
from geo4d_interfaces.msg import Plan
from geo4d_interfaces.srv import Approve, Predict
from geometry_msgs.msg import Pose
from rcl_interfaces.srv import ListParameters
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.ros.serve.qos import IMAGE_QOS, SERVICE_QOS, STATE_QOS
from geo4d_ros.ros.wire.conversions import camera_info_message, image_message, to_stamp

ACTIONS = ('/joint_trajectory_controller/follow_joint_trajectory', '/gripper_controller/gripper_cmd')
CAMERAS = ('/camera1/camera1', '/camera2/camera2')
SERVICES = {'/geo4d/start': Trigger, '/geo4d/step': Trigger, '/geo4d/reset': Trigger, '/geo4d/predict': Predict,
            '/geo4d/approve': Approve}
POSES, CALLERS, BURST, ANSWER_SECONDS = 100_000, 50, 200, 10.0
SIZE, RATE = (480, 640), 30.0


def controller(node: Node, file: Path) -> None:
    """Serve the controllers' cancel services; one line per cancel of the arm: steady time [s]."""
    with open(file, 'w', buffering=1) as log:
        def cancel(request: CancelGoal.Request, response: CancelGoal.Response) -> CancelGoal.Response:
            log.write(f'{time.monotonic():.6f}\n')
            return response

        def other(request: CancelGoal.Request, response: CancelGoal.Response) -> CancelGoal.Response:
            return response

        for name, handler in zip(ACTIONS, (cancel, other), strict=True):
            node.create_service(CancelGoal, f'{name}/_action/cancel_goal', handler, qos_profile=SERVICE_QOS)
        rclpy.spin(node)


def images(node: Node, file: Path) -> None:
    """Two RGB-D cameras: four images of 640 x 480 at 30 Hz, and their camera_info."""
    colour = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    depth, K = np.full(SIZE, 800, np.uint16), intrinsics(60, SIZE[1], SIZE[0])
    publishers: list[tuple[Any, Any]] = []
    for name in CAMERAS:
        for topic, message in (('color/image_raw', image_message(colour, 0, f'{name[1:8]}_color')),
                               ('aligned_depth_to_color/image_raw', image_message(depth, 0, f'{name[1:8]}_color')),
                               ('color/camera_info', camera_info_message(K, *SIZE, 0, f'{name[1:8]}_color'))):
            kind = CameraInfo if topic.endswith('info') else Image
            publishers.append((node.create_publisher(kind, f'{name}/{topic}', IMAGE_QOS), message))

    def send() -> None:
        stamp = to_stamp(node.get_clock().now().nanoseconds)
        for publisher, message in publishers:
            message.header.stamp = stamp
            publisher.publish(message)

    node.create_timer(1 / RATE, send)
    rclpy.spin(node)


def plans(node: Node, file: Path) -> None:
    """A plan of 100 000 poses, twice a second; made once, since it takes a second to make."""
    data = serialize_message(Plan(id='load', poses=[Pose()] * POSES))
    publisher = node.create_publisher(Plan, '/geo4d/plan', STATE_QOS)
    node.create_timer(0.5, lambda: publisher.publish(data))
    rclpy.spin(node)


class Callers:
    """Keeps `CALLERS` calls open; each that is answered is followed by the next."""

    def __init__(self, node: Node) -> None:
        self.clients = [node.create_client(kind, name, qos_profile=SERVICE_QOS) for name, kind in SERVICES.items()]
        self.clients.append(node.create_client(ListParameters, '/plan_executor/list_parameters',
                                               qos_profile=SERVICE_QOS))
        self.open: dict[Any, tuple[Any, float]] = {}  # future -> (its client, steady time)
        self.calls = self.answered = 0
        self.slowest = 0.0

    def call(self, client: Any) -> None:
        """One more call."""
        future = client.call_async(client.srv_type.Request())
        self.open[future] = client, time.monotonic()
        self.calls += 1

    def collect(self) -> None:
        """Count what was answered in time; the rest is given up and counts as a call without an answer."""
        now = time.monotonic()
        for future, (client, begun) in list(self.open.items()):
            if future.done():
                self.answered += now - begun <= ANSWER_SECONDS
                self.slowest = max(self.slowest, now - begun)
                del self.open[future]
            elif now - begun > ANSWER_SECONDS + 1.0:
                client.remove_pending_request(future)
                del self.open[future]


def calls(node: Node, file: Path) -> None:
    """First 200 calls at once of each service, then 50 open calls all the time; the counts go to `file` at the end."""
    callers = Callers(node)
    ready = time.monotonic() + 30.0
    while time.monotonic() < ready and not all(client.service_is_ready() for client in callers.clients):
        rclpy.spin_once(node, timeout_sec=0.05)
    known = [client for client in callers.clients if client.service_is_ready()]
    settle = time.monotonic() + 0.5  # the way of the answers is found after that of the requests
    while time.monotonic() < settle:
        rclpy.spin_once(node, timeout_sec=0.05)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        for client in known:
            for _ in range(BURST):
                callers.call(client)
            while callers.open:
                rclpy.spin_once(node, timeout_sec=0.05)
                callers.collect()
        while rclpy.ok():
            for i in range(max(0, CALLERS - len(callers.open))):
                callers.call(known[(callers.calls + i) % len(known)])
            for _ in range(20):
                rclpy.spin_once(node, timeout_sec=0.002)
            callers.collect()
            _write(file, callers)
    _write(file, callers)


def _write(file: Path, callers: Callers) -> None:
    counted = callers.calls - len(callers.open)
    temporary = file.with_suffix('.new')
    temporary.write_text(json.dumps({'calls': counted, 'answered': callers.answered,
                                     'slowest_answer_s': round(callers.slowest, 2)}))
    temporary.replace(file)


def main() -> None:
    """Run one of the processes until a signal."""
    role = {'controller': controller, 'images': images, 'plans': plans, 'calls': calls}[sys.argv[1]]
    if role is controller:  # the instrument, not the load
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, -10)
    rclpy.init()
    node = rclpy.create_node(f'stop_bench_{sys.argv[1]}')
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        role(node, Path(sys.argv[2]))
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
