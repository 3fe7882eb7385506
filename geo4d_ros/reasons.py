"""Why a motion was refused, stopped or ended: one table of codes, what each means and what the operator does.

`python -m geo4d_ros.reasons` writes docs/reference/reason_codes.md from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypedDict


class Kind(str, Enum):
    """What a reason does to the loop."""

    REFUSAL = 'REFUSAL'  # this plan is not executed; the loop looks again, a few in a row latch a fault
    FAULT = 'FAULT'  # motion is stopped and the loop latches until the operator resets it
    END = 'END'  # the run ended as asked: done, limit reached, stopped by the operator
    NOTE = 'NOTE'  # a remark: nothing ends


class Reason(Enum):
    """Every code this package gives; `name` is the code on the wire, the value holds kind, sentence and remedy."""

    # What the cameras and the robot report
    OBSERVATION_TIMEOUT = (
        Kind.REFUSAL, 'no synchronised camera pair arrived in time',
        'see that both cameras send colour, aligned depth and camera_info under their namespaces; start again')
    OBSERVATION_STALE = (Kind.REFUSAL, 'the camera pair is too old',
                         'look for load or network delay; raise max_age or pair_age only for slow cameras')
    OBSERVATION_SKEWED = (Kind.REFUSAL, 'the two cameras were exposed too far apart in time',
                          'synchronise the cameras, or raise slop and pair_skew by what the scene allows')
    OBSERVATION_INVALID = (Kind.REFUSAL, 'a camera message cannot be used (encoding, size, intrinsics or depth)',
                           "the detail names field and value; mend the camera's settings")
    OBSERVATION_FROZEN = (Kind.REFUSAL, 'a camera repeats the same picture', 'restart the camera that is named')
    CAMERAS_SWAPPED = (Kind.REFUSAL, 'the two cameras do not see the scene from where the transforms say',
                       'check which camera is which, then calibrate again')
    TRANSFORM_MISSING = (Kind.REFUSAL, 'a transform between robot and camera is missing',
                         'start the publisher of the transform that is named, or correct the frame parameters')
    TRANSFORM_IDENTITY = (Kind.REFUSAL, 'the transform between the cameras is the identity, which no rig has',
                          'calibrate the second camera, or end the node that publishes a placeholder')
    CLOCK_JUMP = (Kind.REFUSAL, 'a stamp lies in the future: clocks disagree or jumped back',
                  'synchronise the clocks (use_sim_time on every node or on none), then reset')
    JOINT_STATES_STALE = (Kind.REFUSAL, 'the joint states are too old',
                          'look for load; raise joint_state_age for a slow driver')
    ROBOT_STATE_INVALID = (Kind.REFUSAL, 'the joint states are not finite, incomplete or outside the joint limits',
                           'the detail names joint and parameter: mend the driver, arm_joints or gripper_joint')
    ROBOT_MOVING = (Kind.REFUSAL, 'the arm is not at rest', 'see who else moves the arm; wait until it stands')
    # What the generator and the tracker report
    SINGLE_VIEW = (Kind.NOTE, 'one camera only: no second silhouette for the tracker, what the arm hides is unknown',
                   'expect worse plans; add a second camera (second_camera, or cameras)')
    BUSY = (Kind.REFUSAL, 'the node is at work on another request of this kind',
            'ask again once the request under way is answered')
    NODE_INACTIVE = (Kind.REFUSAL, 'the node is configured but not active',
                     'ros2 lifecycle set NODE activate, with the node that is named')
    PREDICTION_FAILED = (Kind.REFUSAL, 'the generator reported an error', 'read the log of video_generator')
    PREDICTION_TIMEOUT = (Kind.REFUSAL, 'the generator did not answer in time',
                          'raise predict_seconds, or run the generator on a faster device')
    PREDICTION_INVALID = (Kind.REFUSAL, 'the predicted video is not finite or has the wrong shape',
                          'check that the checkpoint is whole and fits the cameras')
    SCENE_UNFAMILIAR = (Kind.REFUSAL, 'the scene is unlike all that the generator was trained on',
                        'make the scene like those of the training, or train on scenes like this one')
    TRACK_LOST = (Kind.REFUSAL, 'the tracker lost the gripper before a usable path was found',
                  'see that both cameras see the gripper; look again')
    TRACKING_FAILED = (Kind.REFUSAL, 'the tracker reported an error or did not answer in time',
                       'read the log of gripper_tracker')
    # The plan itself
    PLAN_EMPTY = (Kind.REFUSAL, 'the plan has no poses', 'look again; if it stays, check the tracker')
    PLAN_INVALID = (Kind.REFUSAL, 'a pose, opening or time of the plan is not finite or not a rigid transform',
                    'the detail names field and value; check the node that publishes /geo4d/plan')
    PLAN_STALE = (Kind.REFUSAL, 'the plan is too old to be executed',
                  'approve sooner, or raise plan_age where the scene does not change meanwhile')
    PLAN_REPEATED = (Kind.REFUSAL, 'this plan id was executed or refused before',
                     'look again; a publisher repeats itself if it stays')
    PLAN_TOO_SHORT = (Kind.REFUSAL, 'fewer trusted poses than the smallest prefix worth executing',
                      'look again; lower prefix only knowingly')
    START_MISMATCH = (Kind.REFUSAL, 'the measured gripper is not where the plan starts',
                      'check the calibration of the reference camera and tool_frame')
    CONFIDENCE_MISSING = (Kind.REFUSAL, 'the plan carries no confidence', 'use a tracker that reports confidence')
    CONFIDENCE_LOW = (Kind.REFUSAL, 'the tracker does not trust the path',
                      'see that both cameras see the gripper; look again')
    STEP_TOO_LARGE = (Kind.REFUSAL, 'consecutive poses are too far apart', 'look again; the prediction jumps')
    OUTSIDE_WORKSPACE = (Kind.REFUSAL, 'a pose lies outside the workspace', 'move the object, or correct workspace')
    INSIDE_KEEP_OUT = (Kind.REFUSAL, 'a pose lies inside a keep-out box', 'move the object, or correct keep_out')
    TABLE_CLEARANCE = (Kind.REFUSAL, 'a pose is too close to the table', 'correct table_height, or calibrate again')
    TILT_TOO_LARGE = (Kind.REFUSAL, 'the gripper tilts out of its cone', 'look again, or widen tilt')
    OPENING_OUT_OF_RANGE = (Kind.REFUSAL, 'an opening is outside what the gripper can do',
                            'correct stroke, gripper_scale and gripper_offset')
    # Kinematics and timing
    IK_FAILED = (Kind.REFUSAL, 'a pose cannot be reached', 'move the object closer, or start from another posture')
    JOINT_LIMIT = (Kind.REFUSAL, 'a joint comes too close to its limit', 'start from another posture')
    JOINT_JUMP = (Kind.REFUSAL, 'a joint jumps between neighbouring samples of the path', 'start from another posture')
    SINGULARITY = (Kind.REFUSAL, 'the arm comes too close to a singularity',
                   'start from another posture, less stretched')
    COLLISION = (Kind.REFUSAL, 'the arm would touch itself or the scene',
                 'clear the way; correct collision_boxes and held_box')
    TIMING_FAILED = (Kind.REFUSAL, 'no timing within the limits was found', 'look again; report the record if it stays')
    TIMED_DEVIATION = (Kind.REFUSAL, 'the timed path leaves the checked path',
                       'look again; report the record if it stays')
    LIMITS_EXCEEDED = (Kind.REFUSAL, 'the timed motion exceeds a speed or acceleration limit',
                       'look again; report the record if it stays')
    PATH_INCOMPLETE = (Kind.REFUSAL, 'the motion planner could follow too little of the path',
                       "clear the way, or check MoveIt's planning scene")
    START_MOVED = (Kind.REFUSAL, 'the arm moved between planning and execution',
                   'see who else moves the arm; look again')
    # During the execution: the loop stops; where it may (`recover`) it gets itself out, a few times
    TRACKING_ERROR = (Kind.REFUSAL, 'a joint is far from where the motion commands it: something holds the arm up',
                      'see what holds the arm up')
    GRASP_UNSETTLED = (Kind.REFUSAL, 'the closing fingers neither arrived nor came to rest on something',
                       'see what the fingers hold')
    GRASP_REPEATED = (Kind.REFUSAL, 'the gripper closed on nothing at this place before',
                      'move the object, then start again')
    # Approval
    APPROVAL_EXPIRED = (Kind.REFUSAL, 'the plan was not approved in time', 'approve within approval_seconds')
    APPROVAL_MISSING = (Kind.REFUSAL, 'the plan was not approved by its id', "call /geo4d/approve with the plan's id")
    APPROVAL_AWAITED = (Kind.NOTE, 'a plan waits for its approval',
                        'look at the plan in RViz, then call /geo4d/approve with its id')
    APPROVAL_WRONG_PLAN = (Kind.NOTE, 'the approval names another plan than the one that waits',
                           'use the plan_id of /geo4d/state')
    NOT_ALLOWED_NOW = (Kind.NOTE, 'this request does not fit the present state',
                       'see /geo4d/state; after a FAULT call /geo4d/reset')
    # Execution
    GOAL_REJECTED = (Kind.FAULT, 'the controller rejected the motion', "read the controller's log; is it active?")
    EXECUTION_ABORTED = (Kind.FAULT, 'the controller aborted the motion', "read the controller's log")
    EXECUTION_TIMEOUT = (Kind.FAULT, 'the motion takes far longer than planned',
                         'see whether the controller runs at the commanded speed')
    MOTION_BLOCKED = (Kind.FAULT, 'the arm could not follow its motion: an obstacle, or a controller that fails',
                      'clear the way, then reset')
    GRIPPER_FAILED = (Kind.FAULT, 'the gripper did not do what it was told', 'see what blocks the fingers, then reset')
    SETTLE_TIMEOUT = (Kind.FAULT, 'the arm did not come to rest after the motion',
                      'see what shakes the arm; check the velocities on /joint_states')
    JOINT_STATES_STALLED = (Kind.FAULT, 'the joint states stopped coming', "restart the robot's driver, then reset")
    CAMERA_SILENT = (Kind.FAULT, 'a camera stopped sending', 'restart the camera that is named, then reset')
    PEER_DEAD = (Kind.FAULT, 'a node this loop depends on is gone', 'restart the node that is named, then reset')
    BACKEND_UNAVAILABLE = (Kind.FAULT, 'the motion or gripper controller does not answer',
                           'start the controller that is named, then reset')
    STOP_NOT_CONFIRMED = (Kind.FAULT, 'the arm still moves although it was told to stop: use the emergency stop',
                          'press the emergency stop; find out why the controller ignores a cancel')
    TOO_MANY_REFUSALS = (Kind.FAULT, 'too many plans in a row were refused',
                         'mend what the last refusal names, then reset')
    NO_PROGRESS = (Kind.FAULT, 'the plans are executed but the gripper does not get anywhere',
                   'see whether the object can be reached, then reset')
    SOURCE_CHANGED = (
        Kind.FAULT, 'plans come from another source than when the run began, or from two',
        'end all but one publisher of /geo4d/plan, then reset; if you know of no second one, look for an intruder')
    MODEL_CHANGED = (Kind.FAULT, 'robot or scene are no longer those that the run began with',
                     'start again with the new robot description or scene')
    INTERNAL_ERROR = (Kind.FAULT, 'the program met a condition it was not built for',
                      'reset; report the log and the record')
    # Ends
    TASK_DONE = (Kind.END, 'the generator predicts no more motion', 'nothing')
    NOTHING_TO_DO = (Kind.END, 'there is no object to handle',
                     'put the object where the cameras see it, if there should be one')
    STEP_DONE = (Kind.END, 'the single cycle asked for is over', 'nothing')
    DRY_RUN = (Kind.END, 'dry run: the motion was checked and shown but not executed', 'set dry_run:=false to move')
    CYCLE_LIMIT = (Kind.END, 'the largest number of cycles is reached', 'raise max_cycles if the task needs more')
    TIME_LIMIT = (Kind.END, 'the longest run time is reached', 'raise max_seconds if the task needs more')
    OPERATOR_STOP = (Kind.END, 'the operator stopped the loop', 'nothing')
    # Notes
    GRASP_MISSED = (Kind.NOTE, 'the gripper closed on nothing: it opens, retreats and looks again',
                    'nothing: the loop looks again')

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

    @property
    def remedy(self) -> str:
        """What the operator does about it."""
        return self.value[2]


# What a gate measured and what it allows, by name with the unit: {'age_s': 0.7, 'limit_s': 0.5}.
Measured = dict[str, 'float | str | list[float]']


class RefusalRecord(TypedDict):
    """A refusal in records and reports; `reason` is a code."""

    reason: str
    detail: str
    values: Measured


@dataclass(frozen=True)
class Refusal:
    """Why nothing is commanded. `detail` holds the numbers, `values` the same for machines."""

    reason: Reason
    detail: str = ''
    values: Measured = field(default_factory=dict)

    @property
    def message(self) -> str:
        """One line: code, sentence and the numbers."""
        return f'{self.reason.code}: {self.reason.sentence}' + (f' ({self.detail})' if self.detail else '')

    def to_json(self) -> RefusalRecord:
        """Plain values for a record."""
        return {'reason': self.reason.code, 'detail': self.detail, 'values': self.values}


def table() -> str:
    """The page docs/reference/reason_codes.md."""
    titles = {Kind.REFUSAL: ('Refusals', 'The plan is not executed; the loop looks again, a few in a row are a fault.'),
              Kind.FAULT: ('Faults', 'Motion is stopped; nothing moves before `/geo4d/reset`.'),
              Kind.END: ('Ends', 'The run ended in order.'), Kind.NOTE: ('Notes', 'Nothing ends.')}
    lines = ['# Reason codes', '',
             'On `/geo4d/state`, in replies, records and reports. Made by `python -m geo4d_ros.reasons`.']
    for kind, (title, meaning) in titles.items():
        lines += ['', f'## {title}', '', meaning, '', '| code | meaning | what to do |', '| --- | --- | --- |']
        lines += [f'| `{r.code}` | {r.sentence} | {r.remedy} |' for r in Reason if r.kind is kind]
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    Path('docs/reference/reason_codes.md').write_text(table(), encoding='utf-8')
