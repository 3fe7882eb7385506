"""The executable `prediction`: generator and tracker in one process; no image passes through DDS between them."""

from __future__ import annotations

import sys
from collections.abc import Callable

from geo4d_interfaces.msg import Plan as PlanMessage
from rclpy.node import Node

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.nodes.gripper_tracker import GripperTrackerNode
from geo4d_ros.nodes.video_generator import VideoGeneratorNode
from geo4d_ros.ros.observe.transforms import TransformBuffer
from geo4d_ros.ros.serve.spin import run_nodes
from geo4d_ros.ros.wire.prediction import Prediction


def compose(generator_class: Callable[..., VideoGeneratorNode] = VideoGeneratorNode,
            tracker_class: Callable[..., GripperTrackerNode] = GripperTrackerNode) -> list[Callable[[], Node]]:
    """Factories of both nodes, to be called in order; they share one transform buffer."""
    generators: list[VideoGeneratorNode] = []
    trackers: list[GripperTrackerNode] = []

    def hand_off(prediction: Prediction) -> PlanMessage:
        return trackers[-1].track(prediction)

    def generator() -> Node:
        generators.append(generator_class(hand_off=hand_off))
        return generators[-1]

    def transforms() -> TransformBuffer:
        observer = getattr(generators[-1], 'observer', None)
        require(observer is not None, 'configure video_generator first: gripper_tracker hears with it',
                ConfigurationError)
        return observer.transforms

    def tracker() -> Node:
        trackers.append(tracker_class(subscribe=False, transforms=transforms))
        return trackers[-1]

    return [generator, tracker]


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `prediction`."""
    return run_nodes(compose(), args)


if __name__ == '__main__':
    sys.exit(main())
