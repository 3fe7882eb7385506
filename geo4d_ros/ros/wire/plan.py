"""A tracked plan on standard topics: /geo4d/plan/path, /gripper, /markers, /info and the overlays."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
from nav_msgs.msg import Path
from PIL import Image as PilImage
from PIL import ImageDraw
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA, String
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from geo4d_ros.geometry.cameras import project
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.reasons import Refusal
from geo4d_ros.ros.serve.qos import NO_PUBLISHER_EVENTS, PREDICTION_QOS, STATE_QOS
from geo4d_ros.ros.wire.conversions import image_message, opening_message, path_message, pose_message, to_stamp
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.ros.wire.prediction import Prediction, view_name
from geo4d_ros.types import GripperTrack, TrackStatus

ROOT = 'geo4d/plan'
AXIS_LENGTH = 0.05  # [m]
COLOURS = {TrackStatus.OK: (0.1, 0.8, 0.2), TrackStatus.DEGRADED: (0.95, 0.7, 0.1), TrackStatus.LOST: (0.9, 0.1, 0.1)}


def plan_info(prediction: Prediction, track: GripperTrack, timings: dict[str, float]) -> dict[str, Any]:
    """What the executor's gates need besides path and opening; lists are per frame, frame 0 is now."""
    return {'plan': prediction.plan, 'stamp': prediction.observation.stamp, 'trusted': track.trusted,
            'confidence': [round(float(c), 4) for c in track.confidence],
            'status': [s.value for s in track.status],
            'timings_ms': {k: round(v * 1e3, 1) for k, v in timings.items()}}


def refused_info(prediction_id: str, stamp: int, refusal: Refusal) -> dict[str, Any]:
    """The info of a plan that is not there."""
    return {'plan': prediction_id, 'stamp': stamp, 'trusted': 0, 'code': refusal.reason.code,
            'detail': refusal.detail}


def parse_plan_info(message: String) -> dict[str, Any] | Malformed:
    """The values of `plan_info` or `refused_info`; total."""
    try:
        values = json.loads(message.data)
    except (ValueError, RecursionError) as error:
        return Malformed('data', message.data, f'no JSON ({str(error)[:60]})')
    if not isinstance(values, dict):
        return Malformed('data', message.data, 'no JSON object')
    plan, stamp, timings = values.get('plan'), values.get('stamp'), values.get('timings_ms', {})
    if not (isinstance(plan, str) and 0 < len(plan) <= 256):
        return Malformed('plan', plan, 'no text of 1 to 256 characters')
    if not (isinstance(stamp, int) and not isinstance(stamp, bool) and 0 <= stamp < 2**62):
        return Malformed('stamp', stamp, 'no stamp')
    if not isinstance(timings, dict):
        return Malformed('timings_ms', timings, 'no object')
    return values


class PlanPublisher:
    """Publishes the trusted prefix of a track in the robot's base frame."""

    def __init__(self, node: Node, views: int) -> None:
        create = partial(node.create_publisher, event_callbacks=NO_PUBLISHER_EVENTS)
        self._path = create(Path, f'{ROOT}/path', STATE_QOS)
        self._gripper = create(JointTrajectory, f'{ROOT}/gripper', STATE_QOS)
        self._markers = create(MarkerArray, f'{ROOT}/markers', STATE_QOS)
        self._info = create(String, f'{ROOT}/info', STATE_QOS)
        self._overlays = [create(Image, f'{ROOT}/{view_name(v)}/overlay/image_raw', PREDICTION_QOS)
                          for v in range(views)]

    def publish(self, prediction: Prediction, track: GripperTrack, T_base_ref: np.ndarray, base_frame: str,
                info: dict[str, Any]) -> None:
        """Path and opening hold frame 0 (measured) and the trusted frames; their header has its stamp."""
        n = track.trusted
        T_base_gripper = T_base_ref @ track.T_ref_gripper
        stamps = prediction.video.stamps
        self._markers.publish(marker_array(T_base_gripper, track, int(stamps[0]), base_frame))
        for view, publisher in enumerate(self._overlays[:prediction.video.views]):
            if publisher.get_subscription_count():
                for frame, stamp in enumerate(stamps.tolist()):
                    publisher.publish(image_message(draw_axes(prediction, track, view, frame), stamp,
                                                    prediction.frame_id if view == 0
                                                    else f'geo4d_{view_name(view)}_optical_frame'))
        self._gripper.publish(opening_message(track.opening[:n], stamps[:n]))
        self._path.publish(path_message(T_base_gripper[:n], stamps[:n], base_frame))
        self._info.publish(String(data=json.dumps(info)))

    def refuse(self, info: dict[str, Any]) -> None:
        """Only the info: no path goes out, and the old one's stamp fits no new plan."""
        self._info.publish(String(data=json.dumps(info)))


def marker_array(T_base_gripper: np.ndarray, track: GripperTrack, stamp: int, frame_id: str) -> MarkerArray:
    """An arrow along the approach axis per frame, coloured by status; LOST frames are shown but small."""
    clear = Marker(action=Marker.DELETEALL)
    clear.header.frame_id = frame_id
    markers = [clear]
    for i, (T, status) in enumerate(zip(T_base_gripper, track.status, strict=True)):
        marker = Marker(ns='geo4d_plan', id=i, type=Marker.ARROW, action=Marker.ADD)
        marker.header.frame_id, marker.header.stamp = frame_id, to_stamp(stamp)
        # An arrow points along x; ours should point along the gripper's z and end at the tool centre point.
        turn = np.array([[0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
        length = 0.02 if status is TrackStatus.LOST else 0.06
        tail = np.eye(4)
        tail[2, 3] = -length
        marker.pose = pose_message(T @ tail @ turn)
        marker.scale.x, marker.scale.y, marker.scale.z = length, 0.004, 0.006
        r, g, b = COLOURS[status]
        marker.color = ColorRGBA(r=r, g=g, b=b, a=0.9)
        markers.append(marker)
    return MarkerArray(markers=markers)


def draw_axes(prediction: Prediction, track: GripperTrack, view: int, frame: int) -> np.ndarray:
    """The predicted image (H, W, 3) uint8 with the tracked gripper's axes (x red, y green, z blue)."""
    video = prediction.video
    picture = PilImage.fromarray(video.rgb[view, frame])
    if track.status[frame] is TrackStatus.LOST:
        return np.asarray(picture)
    ends = np.vstack([np.zeros(3), AXIS_LENGTH * np.eye(3)])
    in_view = transform_points(invert(video.T_ref_view[view]) @ track.T_ref_gripper[frame], ends)
    pixels, depth = project(in_view, video.K[view])
    if (depth > 0.01).all():
        draw = ImageDraw.Draw(picture)
        for end, colour in zip(pixels[1:], ((255, 40, 40), (40, 220, 40), (60, 90, 255)), strict=True):
            draw.line([tuple(pixels[0]), tuple(end)], fill=colour, width=max(1, picture.width // 128))
    return np.asarray(picture)
