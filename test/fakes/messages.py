"""Good messages to start from."""

from __future__ import annotations

import numpy as np
from geo4d_interfaces.msg import PredictionInfo
from geometry_msgs.msg import Pose

from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.ros.wire.conversions import to_stamp

STAMP = 1_800_000_000_000_000_000
FRAMES = 3


def example_info() -> PredictionInfo:
    """Two views, three frames, a measured gripper, a state stream."""
    def pose() -> Pose:
        out = Pose()
        out.orientation.w = 1.0
        return out

    message = PredictionInfo(
        id='p', stamps=[to_stamp(STAMP + i) for i in range(FRAMES)],
        k=np.tile(intrinsics(60, 64, 48).reshape(-1), 2).tolist(), views=[pose(), pose()], gripper=[pose()],
        opening=[0.04], gripper_mask=True, state_poses=[pose() for _ in range(FRAMES)], state_openings=[0.04] * FRAMES,
        state_confidences=[1.0] * FRAMES, state_status=[0, 1, 2])
    message.header.stamp, message.header.frame_id = message.stamps[0], 'optical'
    return message
