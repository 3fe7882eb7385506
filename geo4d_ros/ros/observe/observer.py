"""Looks at the cell: cameras, transforms and joint states of one moment as an `Observation`, or why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from rclpy.node import Node

from geo4d_ros.generation.extra_views import condense
from geo4d_ros.geometry.agreement import MIN_AGREEMENT, view_agreement
from geo4d_ros.geometry.transforms import invert, rotation_angle, translation_distance
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.ros.observe.camera_names import CameraParameters, camera_names
from geo4d_ros.ros.observe.depth_unit import check_depth_unit
from geo4d_ros.ros.observe.joint_state_buffer import JointStateBuffer, listen_to_joint_states
from geo4d_ros.ros.observe.receiver import Receiver
from geo4d_ros.ros.observe.rgbd_sync import RgbdSync, read_frames
from geo4d_ros.ros.observe.transforms import TransformBuffer, TransformError, TransformListener
from geo4d_ros.ros.serve import diagnostics
from geo4d_ros.ros.serve.clock_jump import on_clock_jump
from geo4d_ros.ros.serve.parameters import parameter
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.types import Observation, RgbdFrame

ROBOT = load_robot()
# A gripper that moved this far must have changed the picture.
FROZEN_MOTION_M = 0.005


@dataclass(frozen=True)
class ObserverParameters(CameraParameters):
    """How the cell is looked at."""

    image_transport: str = parameter('raw', 'What is heard: the images, or their JPEG and PNG under <topic>/compressed '
                                     'and <topic>/compressedDepth.', choices=('raw', 'compressed'), read_only=True)
    max_age: float = parameter(1.0, 'Oldest camera pair that is used [s].', minimum=0.01, maximum=60.0)
    slop: float = parameter(0.034, 'Largest difference of the stamps of two cameras [s].', minimum=0.0, maximum=1.0)
    observation_timeout: float = parameter(2.0, 'How long a request waits for a fresh pair [s].', minimum=0.0,
                                           maximum=60.0)
    fresh: bool = parameter(True, 'Use only images taken after the request came in; false for replays.')
    min_valid_depth: float = parameter(0.05, 'Smallest share of valid depth pixels.', minimum=0.0, maximum=1.0)
    min_agreement: float = parameter(MIN_AGREEMENT, 'Smallest share of the surfaces that two calibrated cameras '
                                     'should both see in one place; 0 = unchecked. Swapped cameras fall below.',
                                     minimum=0.0, maximum=1.0)
    depth_unit: float = parameter(0.001, 'Metres per count of 16UC1 depth: 0.001 by REP-118, 0.0001 for a D405 that '
                                  'is not told otherwise.', minimum=1e-5, maximum=0.01, read_only=True)
    tool_frame: str = parameter(ROBOT.tool_frame, 'Transform frame of the tool centre point: z is the approach, '
                                "y the finger opening; '' observes without robot state.", read_only=True)
    transform_tolerance: float = parameter(0.1, 'How long past its last stamp a transform or joint state is held '
                                           '[s].', minimum=0.0, maximum=2.0)
    robot: str = parameter('', 'Name of a described robot, or its YAML file: the opening is that of its fingers, '
                           'in place of finger_joints, opening_scale and opening_offset; empty: as those say.',
                           read_only=True)
    arm_frames: tuple[str, ...] = parameter(ROBOT.arm_frames, 'Transform frames along the arm, base first, hand last: '
                                            "the generator moves the straight pieces between their origins; [''] for "
                                            'none.',
                                            read_only=True)
    finger_joints: tuple[str, ...] = parameter(ROBOT.finger_joints,
                                               'Joints whose positions give the opening.', read_only=True)
    opening_scale: float = parameter(1.0, 'Opening [m] per sum of the finger joint positions.', minimum=-10.0,
                                     maximum=10.0, read_only=True)
    opening_offset: float = parameter(0.0, 'Opening [m] when the sum of the finger joint positions is 0.',
                                      minimum=-1.0, maximum=1.0, read_only=True)


@dataclass(frozen=True)
class Look:
    """An observation with the spread of its stamps [s] and its age [s] when it was taken up."""

    observation: Observation
    skew: float
    age: float


class Observer:
    """Subscribes everything an observation is made of; `parameters()` gives the current values.

    Nothing is received before `receiver.start()`.
    """

    def __init__(self, node: Node, parameters: Callable[[], ObserverParameters],
                 report: diagnostics.Diagnostics) -> None:
        self.parameters, self.diagnostics = parameters, report
        p = parameters()
        self.cameras = camera_names(p)
        self.transforms, self.joints = TransformBuffer(), JointStateBuffer()
        self.receiver, boundary = Receiver(node, 'cameras'), Boundary(node, report)
        TransformListener(self.receiver, boundary, self.transforms)
        listen_to_joint_states(self.receiver, boundary, self.joints)
        self.sync = RgbdSync(self.receiver, boundary, self.cameras, p.image_transport == 'compressed')
        self._last: tuple[int, Observation] | None = None  # with the number of starts it belongs to
        self._jump = on_clock_jump(node, self.forget)

    def forget(self) -> None:
        """The clock jumped: transforms, joints and pictures of before are of another run."""
        self.transforms.forget()
        self.joints.forget()
        self.sync.pairing.forget()

    def look(self) -> Look | Refusal:
        """One observation, checked; the refusal's reason is one of the OBSERVATION_, TRANSFORM_ or state codes."""
        p = self.parameters()
        starts = self.sync.pairing.starts
        match = self.sync.wait(p.slop, p.max_age, p.observation_timeout, p.fresh)
        if isinstance(match, Refusal):
            return self._refuse(match)
        frames = read_frames(match, p.min_valid_depth, p.depth_unit)
        if isinstance(frames, Refusal):
            return self._refuse(frames)
        state = self._awaited_robot_state(frames, p)
        if isinstance(state, Refusal):
            return self._refuse(state)
        T_ref_gripper, opening, arm_points = state
        observation = Observation(frames, T_ref_gripper, opening, arm_points=arm_points)
        # The unit first: depth ten times too far lets the cameras' surfaces disagree as well, which is not the cause.
        wrong = (check_depth_unit(observation, p.depth_unit) or self._check_rig(frames, p)
                 or self._frozen(observation, starts))
        if wrong:
            return self._refuse(wrong)
        self._last = starts, observation
        look = Look(observation, match.skew, self.sync.age(match))
        self.diagnostics.set('cameras', diagnostics.OK, 'in step', skew_ms=look.skew * 1e3, age_ms=look.age * 1e3)
        return look

    def for_model(self, look: Look, views: int) -> Look:
        """The views that a model predicts, what the others see put to use; /diagnostics says which mode that is."""
        seen, given = condense(look.observation, views), len(look.observation.views)
        if given == 1:
            text = Refusal(Reason.SINGLE_VIEW, f'only {self.cameras[0]}').message
            self.diagnostics.set('views', diagnostics.WARN, text)
        else:
            lost = f'; not placed: {", ".join(seen.unplaced)}' if seen.unplaced else ''
            self.diagnostics.set('views', diagnostics.WARN if lost else diagnostics.OK,
                                 f'{len(seen.filled)} of {given} views are predicted{lost}',
                                 **{f'filled pixels of view {i}': count for i, count in enumerate(seen.filled)})
        return replace(look, observation=seen.observation)

    def _refuse(self, refusal: Refusal) -> Refusal:
        self.diagnostics.set('cameras', diagnostics.ERROR, refusal.message)
        return refusal

    def _awaited_robot_state(self, frames: tuple[RgbdFrame, ...], p: ObserverParameters) -> tuple | Refusal:
        """`_robot_state`; images may overtake the transforms of their moment, which are then waited for."""
        deadline = time.monotonic() + p.observation_timeout
        while True:
            state = self._robot_state(frames, p)
            late = isinstance(state, Refusal) and state.reason in (Reason.TRANSFORM_MISSING,
                                                                   Reason.JOINT_STATES_STALE)
            if not late or time.monotonic() > deadline:
                return state
            time.sleep(0.02)

    def _robot_state(self, frames: tuple[RgbdFrame, ...], p: ObserverParameters) -> tuple | Refusal:
        """T_ref_gripper, opening [m] and arm points [m] at the reference's stamp; None each when not asked for."""
        reference, stamp = frames[0].frame_id, frames[0].stamp
        if not p.tool_frame:
            return None, None, None
        try:
            T_ref_gripper = self.transforms.lookup(reference, p.tool_frame, stamp, p.transform_tolerance)
            arm = [self.transforms.lookup(reference, frame, stamp, p.transform_tolerance)[:3, 3]
                   for frame in p.arm_frames if frame]
        except TransformError as error:
            return Refusal(Reason.TRANSFORM_MISSING, str(error))
        arm_points = np.stack(arm) if arm else None
        gripper = load_robot(p.robot).gripper if p.robot else None
        joints = gripper.joints if gripper else p.finger_joints
        if not joints:
            return T_ref_gripper, None, arm_points
        fingers = self.joints.at(stamp, joints, p.transform_tolerance)
        if isinstance(fingers, Refusal):
            return fingers
        if gripper:
            return T_ref_gripper, gripper.motion.measured(float(fingers.mean())), arm_points
        return T_ref_gripper, p.opening_offset + p.opening_scale * float(fingers.sum()), arm_points

    def _check_rig(self, frames: tuple[RgbdFrame, ...], p: ObserverParameters) -> Refusal | None:
        """The first refusal of a camera beside the reference."""
        refusals = (self._check_pair(frames[0], frame, p) for frame in frames[1:])
        return next((refusal for refusal in refusals if refusal is not None), None)

    def _check_pair(self, reference: RgbdFrame, second: RgbdFrame, p: ObserverParameters) -> Refusal | None:
        """Where both cameras are calibrated: do they stand apart, and see the same surfaces from there?"""
        try:
            T = self.transforms.lookup(reference.frame_id, second.frame_id)
        except TransformError:
            return None  # the second camera's pose is not needed: the generator works without it
        if translation_distance(T, np.eye(4)) < 1e-6 and rotation_angle(T, np.eye(4)) < 1e-6:
            return Refusal(Reason.TRANSFORM_IDENTITY, f'{reference.frame_id!r} and {second.frame_id!r} coincide; '
                           'calibrate, or stop the node that publishes a placeholder')
        shares = view_agreement(reference, second, T), view_agreement(second, reference, invert(T))
        known = [share for share in shares if share is not None]
        if known and min(known) < p.min_agreement:
            return Refusal(Reason.CAMERAS_SWAPPED, f'{min(known):.0%} of the surfaces agree, {p.min_agreement:.0%} '
                           'needed; check which camera is which, then the calibration', {'agreement': min(known)})
        return None

    def _frozen(self, observation: Observation, starts: int) -> Refusal | None:
        if self._last is None or self._last[0] != starts:
            return None  # a restarted camera may show what it showed before
        last = self._last[1]
        if last.T_ref_gripper is None or observation.T_ref_gripper is None:
            return None
        moved = float(translation_distance(last.T_ref_gripper, observation.T_ref_gripper))
        if moved < FROZEN_MOTION_M:
            return None
        for before, now in zip(last.views, observation.views, strict=False):
            if np.array_equal(before.rgb, now.rgb) and np.array_equal(before.depth, now.depth):
                return Refusal(Reason.OBSERVATION_FROZEN, f'{now.frame_id} shows the same pixels although the '
                               f'gripper moved {moved * 1e3:.0f} mm')
        return None

    def close(self) -> None:
        """End the receiving thread."""
        self._jump.unregister()
        self.receiver.close()


