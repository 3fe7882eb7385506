"""Why a motion was refused, stopped or ended: one code and one sentence for every case."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Kind(str, Enum):
    """What a reason does to the loop."""

    REFUSAL = 'REFUSAL'  # this plan is not executed; the loop looks again, a few in a row latch a fault
    FAULT = 'FAULT'  # motion is stopped and the loop latches until the operator resets it
    END = 'END'  # the run ended as asked: done, limit reached, stopped by the operator
    NOTE = 'NOTE'  # a remark: nothing ends


class Reason(Enum):
    """Every code this package gives; `name` is the code on the wire, the value holds kind and sentence."""

    # What the cameras and the robot report
    OBSERVATION_TIMEOUT = (Kind.REFUSAL, 'no synchronised camera pair arrived in time')
    OBSERVATION_STALE = (Kind.REFUSAL, 'the camera pair is too old')
    OBSERVATION_SKEWED = (Kind.REFUSAL, 'the two cameras were exposed too far apart in time')
    OBSERVATION_INVALID = (Kind.REFUSAL, 'a camera message cannot be used (encoding, size, intrinsics or depth)')
    OBSERVATION_FROZEN = (Kind.REFUSAL, 'a camera repeats the same picture')
    CAMERAS_SWAPPED = (Kind.REFUSAL, 'the two cameras do not see the scene from where the transforms say')
    TRANSFORM_MISSING = (Kind.REFUSAL, 'a transform between robot and camera is missing')
    TRANSFORM_IDENTITY = (Kind.REFUSAL, 'the transform between the cameras is the identity, which no rig has')
    CLOCK_JUMP = (Kind.REFUSAL, 'a stamp lies in the future: clocks disagree or jumped back')
    JOINT_STATES_STALE = (Kind.REFUSAL, 'the joint states are too old')
    ROBOT_STATE_INVALID = (Kind.REFUSAL, 'the joint states are not finite, incomplete or outside the joint limits')
    ROBOT_MOVING = (Kind.REFUSAL, 'the arm is not at rest')
    # What the generator and the tracker report
    BUSY = (Kind.REFUSAL, 'the node is at work on another request of this kind')
    PREDICTION_FAILED = (Kind.REFUSAL, 'the generator reported an error')
    PREDICTION_TIMEOUT = (Kind.REFUSAL, 'the generator did not answer in time')
    PREDICTION_INVALID = (Kind.REFUSAL, 'the predicted video is not finite or has the wrong shape')
    SCENE_UNFAMILIAR = (Kind.REFUSAL, 'the scene is unlike all that the generator was trained on')
    TRACK_LOST = (Kind.REFUSAL, 'the tracker lost the gripper before a usable path was found')
    TRACKING_FAILED = (Kind.REFUSAL, 'the tracker reported an error or did not answer in time')
    # The plan itself
    PLAN_EMPTY = (Kind.REFUSAL, 'the plan has no poses')
    PLAN_INVALID = (Kind.REFUSAL, 'a pose, opening or time of the plan is not finite or not a rigid transform')
    PLAN_STALE = (Kind.REFUSAL, 'the plan is too old to be executed')
    PLAN_REPEATED = (Kind.REFUSAL, 'this plan id was executed or refused before')
    PLAN_TOO_SHORT = (Kind.REFUSAL, 'fewer trusted poses than the smallest prefix worth executing')
    START_MISMATCH = (Kind.REFUSAL, 'the measured gripper is not where the plan starts')
    CONFIDENCE_MISSING = (Kind.REFUSAL, 'the plan carries no confidence')
    CONFIDENCE_LOW = (Kind.REFUSAL, 'the tracker does not trust the path')
    STEP_TOO_LARGE = (Kind.REFUSAL, 'consecutive poses are too far apart')
    OUTSIDE_WORKSPACE = (Kind.REFUSAL, 'a pose lies outside the workspace')
    INSIDE_KEEP_OUT = (Kind.REFUSAL, 'a pose lies inside a keep-out box')
    TABLE_CLEARANCE = (Kind.REFUSAL, 'a pose is too close to the table')
    TILT_TOO_LARGE = (Kind.REFUSAL, 'the gripper tilts out of its cone')
    OPENING_OUT_OF_RANGE = (Kind.REFUSAL, 'an opening is outside what the gripper can do')
    # Kinematics and timing
    IK_FAILED = (Kind.REFUSAL, 'a pose cannot be reached')
    JOINT_LIMIT = (Kind.REFUSAL, 'a joint comes too close to its limit')
    JOINT_JUMP = (Kind.REFUSAL, 'a joint jumps between neighbouring samples of the path')
    SINGULARITY = (Kind.REFUSAL, 'the arm comes too close to a singularity')
    COLLISION = (Kind.REFUSAL, 'the arm would touch itself or the scene')
    TIMING_FAILED = (Kind.REFUSAL, 'no timing within the limits was found')
    TIMED_DEVIATION = (Kind.REFUSAL, 'the timed path leaves the checked path')
    LIMITS_EXCEEDED = (Kind.REFUSAL, 'the timed motion exceeds a speed or acceleration limit')
    PATH_INCOMPLETE = (Kind.REFUSAL, 'the motion planner could follow too little of the path')
    START_MOVED = (Kind.REFUSAL, 'the arm moved between planning and execution')
    # During the execution: the loop stops; where it may (`recover`) it gets itself out, a few times
    TRACKING_ERROR = (Kind.REFUSAL, 'a joint is far from where the motion commands it: something holds the arm up')
    GRASP_UNSETTLED = (Kind.REFUSAL, 'the closing fingers neither arrived nor came to rest on something')
    GRASP_REPEATED = (Kind.REFUSAL, 'the gripper closed on nothing at this place before')
    # Approval
    APPROVAL_EXPIRED = (Kind.REFUSAL, 'the plan was not approved in time')
    APPROVAL_MISSING = (Kind.REFUSAL, 'the plan was not approved by its id')
    APPROVAL_AWAITED = (Kind.NOTE, 'a plan waits for its approval')
    APPROVAL_WRONG_PLAN = (Kind.NOTE, 'the approval names another plan than the one that waits')
    NOT_ALLOWED_NOW = (Kind.NOTE, 'this request does not fit the present state')
    # Execution
    GOAL_REJECTED = (Kind.FAULT, 'the controller rejected the motion')
    EXECUTION_ABORTED = (Kind.FAULT, 'the controller aborted the motion')
    EXECUTION_TIMEOUT = (Kind.FAULT, 'the motion takes far longer than planned')
    MOTION_BLOCKED = (Kind.FAULT, 'the arm could not follow its motion: an obstacle, or a controller that fails')
    GRIPPER_FAILED = (Kind.FAULT, 'the gripper did not do what it was told')
    SETTLE_TIMEOUT = (Kind.FAULT, 'the arm did not come to rest after the motion')
    JOINT_STATES_STALLED = (Kind.FAULT, 'the joint states stopped coming')
    CAMERA_SILENT = (Kind.FAULT, 'a camera stopped sending')
    PEER_DEAD = (Kind.FAULT, 'a node this loop depends on is gone')
    BACKEND_UNAVAILABLE = (Kind.FAULT, 'the motion or gripper controller does not answer')
    STOP_NOT_CONFIRMED = (Kind.FAULT, 'the arm still moves although it was told to stop: use the emergency stop')
    TOO_MANY_REFUSALS = (Kind.FAULT, 'too many plans in a row were refused')
    NO_PROGRESS = (Kind.FAULT, 'the plans are executed but the gripper does not get anywhere')
    SOURCE_CHANGED = (Kind.FAULT, 'plans come from another source than when the run began, or from two')
    MODEL_CHANGED = (Kind.FAULT, 'robot or scene are no longer those that the run began with')
    INTERNAL_ERROR = (Kind.FAULT, 'the program met a condition it was not built for')
    # Ends
    TASK_DONE = (Kind.END, 'the generator predicts no more motion')
    NOTHING_TO_DO = (Kind.END, 'there is no object to handle')
    STEP_DONE = (Kind.END, 'the single cycle asked for is over')
    DRY_RUN = (Kind.END, 'dry run: the motion was checked and shown but not executed')
    CYCLE_LIMIT = (Kind.END, 'the largest number of cycles is reached')
    TIME_LIMIT = (Kind.END, 'the longest run time is reached')
    OPERATOR_STOP = (Kind.END, 'the operator stopped the loop')
    # Notes
    GRASP_MISSED = (Kind.NOTE, 'the gripper closed on nothing: it opens, retreats and looks again')

    @property
    def code(self) -> str:
        """The code on topics, in logs and JSON."""
        return self.name

    @property
    def kind(self) -> Kind:
        """What the reason does to the loop."""
        return self.value[0]

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        return self.value[1]


@dataclass(frozen=True)
class Refusal:
    """Why nothing is commanded. `detail` holds the numbers, `values` the same for machines."""

    reason: Reason
    detail: str = ''
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """One line: code, sentence and the numbers."""
        return f'{self.reason.code}: {self.reason.sentence}' + (f' ({self.detail})' if self.detail else '')

    def to_json(self) -> dict[str, Any]:
        """Plain values for a record."""
        return {'reason': self.reason.code, 'detail': self.detail, 'values': self.values}
