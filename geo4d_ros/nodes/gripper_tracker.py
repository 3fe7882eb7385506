"""The node `gripper_tracker`: a predicted video in, the gripper's trusted path in the robot's base frame out."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from geo4d_interfaces.msg import Plan as PlanMessage
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from geo4d_ros.errors import ConfigurationError, Geo4dError, require
from geo4d_ros.loop.verdict import judge
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.gripper import GripperModel, gripper_of, load_gripper
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.observe.transforms import TransformBuffer, TransformError, TransformListener
from geo4d_ros.ros.serve import diagnostics
from geo4d_ros.ros.serve.clock_jump import on_clock_jump
from geo4d_ros.ros.serve.lifecycle import LifecycleParameters, ManagedNode
from geo4d_ros.ros.serve.liveness import announce
from geo4d_ros.ros.serve.parameters import NodeParameters, parameter
from geo4d_ros.ros.serve.spin import run_node
from geo4d_ros.ros.serve.torch_import import wait_for_torch
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.ros.wire.plan import PlanPublisher
from geo4d_ros.ros.wire.plan_message import plan_message, refusal_message
from geo4d_ros.ros.wire.prediction import Prediction, PredictionReceiver
from geo4d_ros.tracking.backends.registry import TRACKERS
from geo4d_ros.tracking.protocol import READOUTS, Tracker
from geo4d_ros.types import TrackStatus

MASKS = ('auto', 'generator', 'segmenter', 'colour')


@dataclass(frozen=True)
class TrackerParameters(LifecycleParameters):
    """Parameters of the node."""

    tracker: str = parameter('model', 'Tracking backend.', choices=tuple(TRACKERS), read_only=True)
    readout: str = parameter('fused', 'What the path is read from: the video, the state stream, or both.',
                             choices=READOUTS, read_only=True)
    masks: str = parameter('auto', 'Where the gripper masks come from.', choices=MASKS, read_only=True)
    robot: str = parameter('', "Name of a described robot, or its YAML file, whose gripper is tracked; empty: see "
                           '`gripper`.', read_only=True)
    gripper: str = parameter('', "YAML file that describes the gripper (meshes, opening); empty: the default robot's.",
                             read_only=True)
    segmenter: str = parameter('', 'Directory of the segmenter weights; empty: the shipped ones.', read_only=True)
    foundationpose_root: str = parameter('', "Your checkout of NVlabs/FoundationPose, for tracker 'foundationpose'.",
                                         read_only=True)
    foundationpose_python: str = parameter('python3', 'Interpreter of its environment.', read_only=True)
    frame_deadline: float = parameter(2.0, 'Longest an outside tracker may take per frame [s].', minimum=0.01,
                                      maximum=600.0, read_only=True)
    base_frame: str = parameter(load_robot().base_frame, 'Frame of the published path.', read_only=True)
    views: int = parameter(2, 'Number of views of the prediction.', minimum=1, maximum=8, read_only=True)
    min_confidence: float = parameter(0.0, 'Below this a frame counts as an alarm in the diagnostics.', minimum=0.0,
                                      maximum=1.0)
    transform_tolerance: float = parameter(0.1, 'How long past its last stamp a transform is held [s].', minimum=0.0,
                                           maximum=2.0)


class GripperTrackerNode(ManagedNode):
    """Tracks predictions from the topics, or handed over in this process (`subscribe=False`).

    transforms(): the buffer that another node of this process fills; None: an own one.
    """

    def __init__(self, subscribe: bool = True, transforms: Callable[[], TransformBuffer] | None = None) -> None:
        super().__init__('gripper_tracker')
        self.parameters = NodeParameters(self, TrackerParameters)
        self.diagnostics = diagnostics.Diagnostics(self)
        self._lock, self._subscribe, self._shared_transforms = threading.Lock(), subscribe, transforms

    def set_up(self) -> None:
        """Start the backend and listen."""
        p = self.parameters.values
        self.boundary = Boundary(self, self.diagnostics)
        if self._shared_transforms is not None:
            # A generator's thread imports torch by now, and SciPy, with which the tracker is made, fails beside a torch
            # that is half imported: this waits until it is whole.
            wait_for_torch()
        self.tracker = self.create_tracker()
        self.owned.callback(self.tracker.close)
        self.publisher = PlanPublisher(self, p.views)
        if self._shared_transforms is None:
            self._own_transforms = TransformBuffer()
            receiver = Receiver(self, 'transforms')
            self.owned.callback(receiver.close)
            TransformListener(receiver, self.boundary, self._own_transforms)
            self.owned.callback(on_clock_jump(self, self._own_transforms.forget).unregister)
            receiver.start()
        if self._subscribe:
            self.predictions = PredictionReceiver(self, self.boundary, p.views, self.track, self._on_error,
                                                  MutuallyExclusiveCallbackGroup())
        self._alive = announce(self)
        self.diagnostics.set('tracker', diagnostics.OK, 'ready', backend=self.tracker.name,
                             readout=self.tracker.readout)

    @property
    def transforms(self) -> TransformBuffer:
        """What /tf and /tf_static said."""
        return self._shared_transforms() if self._shared_transforms else self._own_transforms

    def create_tracker(self) -> Tracker:
        """The backend that the parameters name; tests replace it. A backend that cannot run ends the node."""
        from geo4d_ros.tracking.factory import create_tracker

        p, options = self.parameters.values, {}
        if p.tracker == 'foundationpose':
            options = {'root': p.foundationpose_root, 'python': p.foundationpose_python, 'deadline_s': p.frame_deadline}
        elif p.tracker == 'isaac':
            from geo4d_ros.ros.observe.isaac_tracker import IsaacPoseClient

            options = {'client': IsaacPoseClient(self, p.frame_deadline)}
        return create_tracker(p.tracker, readout=p.readout, masks=p.masks,
                              gripper=gripper_of(load_robot(p.robot)) if p.robot else read_gripper(p.gripper),
                              segmenter=p.segmenter or None, **options)

    def track(self, prediction: Prediction) -> PlanMessage:
        """Track and publish one prediction; returns the plan that went out, or the refusal in its place."""
        with self._lock:
            answer = self._track(prediction)
        if isinstance(answer, Refusal):
            self.get_logger().warning(answer.message)
            self.diagnostics.set('track', diagnostics.WARN, answer.message, plan=prediction.plan)
            answer = refusal_message(prediction.plan, prediction.observation.stamp, answer)
            self.publisher.refuse(answer)
        return answer

    def _track(self, prediction: Prediction) -> PlanMessage | Refusal:
        p, start = self.parameters.values, time.perf_counter()
        if self.inactive:
            return self.inactive
        try:
            T_base_ref = self.transforms.lookup(p.base_frame, prediction.frame_id, prediction.observation.stamp,
                                                p.transform_tolerance)
            track = self.tracker.track(prediction.video, prediction.observation)
        except TransformError as error:
            return Refusal(Reason.TRANSFORM_MISSING, str(error))
        except Exception as error:
            # Whatever a backend raises, the cell keeps running: no plan, and the cause in the log.
            if not isinstance(error, Geo4dError):
                self.get_logger().error(traceback.format_exc())
            return Refusal(Reason.TRACKING_FAILED, str(error))
        seconds = time.perf_counter() - start
        if self.inactive:  # meanwhile
            return self.inactive
        if track.trusted < 2:
            cause = track.details.get('reason', 'no frame after the first can be trusted')
            return Refusal(Reason.TRACK_LOST, str(cause))
        message = plan_message(prediction.plan, track, T_base_ref, prediction.video.stamps, p.base_frame,
                               judge(prediction.video, prediction.observation.opening))
        self.publisher.publish(message, prediction, track, T_base_ref)
        worst = min(track.confidence)
        good = all(s is TrackStatus.OK for s in track.status) and worst >= p.min_confidence
        self.diagnostics.set('track', diagnostics.OK if good else diagnostics.WARN,
                             f'{track.trusted} of {len(track)} frames trusted', plan=prediction.plan,
                             milliseconds=round(seconds * 1e3, 1),
                             **{f'frame {i}': f'{s.value} {c:.2f}' for i, (s, c) in
                                enumerate(zip(track.status, track.confidence, strict=True))})
        return message

    def _on_error(self, plan: str, message: str) -> None:
        refusal = Refusal(Reason.PREDICTION_INVALID, message)
        self.get_logger().warning(refusal.message)
        self.diagnostics.set('track', diagnostics.WARN, refusal.message, plan=plan)
        if plan:
            self.publisher.refuse(refusal_message(plan, 0, refusal))


def read_gripper(path: str) -> GripperModel | None:
    """The gripper that a YAML file describes (see `tracking.gripper.load_gripper`); None for ''."""
    if not path:
        return None
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f'gripper file {path} cannot be read: {" ".join(str(error).split())}') from error
    require(isinstance(values, dict), f'gripper file {path} should hold a mapping', ConfigurationError)
    return load_gripper(values, Path(path).parent)


def main(args: list[str] | None = None) -> int:
    """Entry point of the executable `gripper_tracker`."""
    return run_node(GripperTrackerNode, args, threads=3)


if __name__ == '__main__':
    sys.exit(main())
