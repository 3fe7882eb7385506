"""A tracked plan on its topics: /geo4d/plan is what counts; path, markers and overlays are views for RViz."""

from __future__ import annotations

from functools import partial

import numpy as np
from geo4d_interfaces.msg import Plan as PlanMessage
from nav_msgs.msg import Path
from PIL import Image as PilImage
from PIL import ImageDraw
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from geo4d_ros.geometry.cameras import project
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.ros.serve.qos import NO_PUBLISHER_EVENTS, PREDICTION_QOS, STATE_QOS, overridden
from geo4d_ros.ros.wire.conversions import image_message, path_message, pose_message, to_stamp
from geo4d_ros.ros.wire.prediction import Prediction, view_name
from geo4d_ros.types import GripperTrack, TrackStatus

ROOT = 'geo4d/plan'
AXIS_LENGTH = 0.05  # [m]
COLOURS = {TrackStatus.OK: (0.1, 0.8, 0.2), TrackStatus.DEGRADED: (0.95, 0.7, 0.1), TrackStatus.LOST: (0.9, 0.1, 0.1)}


class PlanPublisher:
    """Publishes the trusted prefix of a track in the robot's base frame."""

    def __init__(self, node: Node, views: int) -> None:
        create = partial(node.create_publisher, event_callbacks=NO_PUBLISHER_EVENTS)
        self._plan = create(PlanMessage, ROOT, STATE_QOS)

        def shown(kind: type, topic: str, qos: QoSProfile) -> Publisher:
            return create(kind, f'{ROOT}/{topic}', overridden(node, f'{ROOT}/{topic}', qos, 'publisher'))

        self._path, self._markers = shown(Path, 'path', STATE_QOS), shown(MarkerArray, 'markers', STATE_QOS)
        self._overlays = [shown(Image, f'{view_name(v)}/overlay/image_raw', PREDICTION_QOS) for v in range(views)]

    def publish(self, message: PlanMessage, prediction: Prediction, track: GripperTrack,
                T_base_ref: np.ndarray) -> None:
        """The plan and its views: frame 0 (measured) and the trusted frames; the markers show every frame."""
        stamps, base_frame = prediction.video.stamps, message.header.frame_id
        T_base_gripper, n = T_base_ref @ track.T_ref_gripper, len(message.poses)
        self._markers.publish(marker_array(T_base_gripper, track, int(stamps[0]), base_frame))
        for view, publisher in enumerate(self._overlays[:prediction.video.views]):
            if publisher.get_subscription_count():
                for frame, stamp in enumerate(stamps.tolist()):
                    publisher.publish(image_message(draw_axes(prediction, track, view, frame), stamp,
                                                    prediction.frame_id if view == 0
                                                    else f'geo4d_{view_name(view)}_optical_frame'))
        self._path.publish(path_message(T_base_gripper[:n], stamps[:n], base_frame))
        self._plan.publish(message)

    def refuse(self, message: PlanMessage) -> None:
        """Only the refusal: no view goes out, and what is shown belongs to an older plan."""
        self._plan.publish(message)


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
