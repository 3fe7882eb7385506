"""Tells when a node's clock jumps back or changes between system and simulated time."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.clock import JumpHandle, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node

NO_CLOCK = ('no /clock although use_sim_time is set: start the simulation or the replay with its clock, or set '
            'use_sim_time to false')
BACK_S = 0.1  # what the system's clock may be set back by NTP


def on_clock_jump(node: Node, jumped: Callable[[], None]) -> JumpHandle:
    """Call `jumped` after each jump, in the thread that takes /clock; keep the handle, `unregister()` ends it."""
    def after(jump: TimeJump) -> None:
        jumped()

    threshold = JumpThreshold(min_forward=None, min_backward=Duration(seconds=-BACK_S), on_clock_change=True)
    return node.get_clock().create_jump_callback(threshold, post_callback=after)
