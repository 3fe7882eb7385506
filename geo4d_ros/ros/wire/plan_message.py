"""geo4d_interfaces/Plan, the one carrier of a plan, and back: a total parser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from geo4d_interfaces.msg import Plan as PlanMessage
from geo4d_interfaces.srv import Predict

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.loop.verdict import PROCEED, Judgement
from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.wire.conversions import pose_message, read_pose, to_nanoseconds, to_stamp
from geo4d_ros.ros.wire.guard import Malformed
from geo4d_ros.types import GripperTrack, Plan, Verdict

MAX_POSES = 1000
PLAN_BYTES = 1 << 18  # of a message of so many poses, with room
VERDICTS = {verdict: getattr(PlanMessage, verdict.name) for verdict in Verdict}
_OF_NUMBER = {number: verdict for verdict, number in VERDICTS.items()}


@dataclass(frozen=True)
class Received:
    """A plan message as the loop sees it: id, stamp [ns] of the observation, frame of the poses, plan or refusal."""

    id: str
    stamp: int
    frame_id: str
    answer: Plan | Refusal


def plan_message(plan_id: str, track: GripperTrack, T_base_ref: np.ndarray, stamps: np.ndarray, base_frame: str,
                 judgement: Judgement = PROCEED) -> PlanMessage:
    """The trusted frames of a track; T_base_ref (4, 4), stamps (T+1,) int64 [ns]."""
    n = track.trusted
    message = PlanMessage(
        id=plan_id, verdict=VERDICTS[judgement.verdict], verdict_text=judgement.text,
        poses=[pose_message(T) for T in T_base_ref @ track.T_ref_gripper[:n]],
        seconds=((stamps[:n] - stamps[0]) * 1e-9).tolist(), openings=track.opening[:n].astype(float).tolist(),
        confidences=track.confidence[:n].astype(float).tolist())
    message.header.frame_id, message.header.stamp = base_frame, to_stamp(int(stamps[0]))
    return message


def refusal_message(plan_id: str, stamp: int, refusal: Refusal) -> PlanMessage:
    """A plan that is not there, and why; stamp [ns] of the observation."""
    message = PlanMessage(id=plan_id, reason=refusal.reason.code, detail=refusal.detail[:1000])
    message.header.stamp = to_stamp(stamp)
    return message


def read_judgement(verdict: int, text: str) -> Judgement | None:
    """What the two fields of a message say; None for a number that is no verdict."""
    return Judgement(_OF_NUMBER[verdict], text[:1000]) if verdict in _OF_NUMBER else None


def predict_reply(plan: PlanMessage, judgement: Judgement, stamp: int, stages_ms: dict[str, float],
                  **values: Any) -> Predict.Response:
    """The answer of /geo4d/predict about the plan that went out, of the observation at stamp [ns].

    A verdict that there is nothing to plan for is an answer, with a plan or without.
    """
    good = not plan.reason or judgement.verdict is not Verdict.PROCEED
    reason, detail = ('', '') if good else (plan.reason, plan.detail)
    return Predict.Response(success=good, reason=reason, detail=detail, plan_id=plan.id, stamp=to_stamp(stamp),
                            verdict=VERDICTS[judgement.verdict], verdict_text=judgement.text,
                            stages=list(stages_ms), stages_ms=[float(v) for v in stages_ms.values()], **values)


def parse_plan(message: PlanMessage) -> Received | Malformed:
    """What a message says, or which of its fields cannot be true."""
    stamp = to_nanoseconds(message.header.stamp)
    if not 0 < len(message.id) <= 256:
        return Malformed('id', message.id, 'no text of 1 to 256 characters')
    if not 0 <= message.header.stamp.nanosec < 10**9 or not 0 <= stamp < 2**62:
        return Malformed('header.stamp', stamp, 'no time of an observation')
    if message.verdict not in _OF_NUMBER:
        return Malformed('verdict', message.verdict, 'unknown')
    if message.reason:
        if message.reason not in Reason.__members__:
            return Malformed('reason', message.reason, 'no reason code of this package')
        answer: Plan | Refusal | Malformed = Refusal(Reason[message.reason], message.detail[:1000])
    else:
        answer = _plan(message, stamp)
    return answer if isinstance(answer, Malformed) else Received(message.id, stamp, message.header.frame_id, answer)


def checked_plan(message: PlanMessage) -> PlanMessage | Malformed:
    """The message itself, where `parse_plan` has nothing against it."""
    parsed = parse_plan(message)
    return parsed if isinstance(parsed, Malformed) else message


def _plan(message: PlanMessage, stamp: int) -> Plan | Malformed:
    n = len(message.poses)
    if not 2 <= n <= MAX_POSES:
        return Malformed('poses', f'{n} poses', f'2 to {MAX_POSES} are a plan, the measured one included')
    columns = {name: np.array(getattr(message, name), np.float64) for name in ('seconds', 'openings', 'confidences')}
    for name, values in columns.items():
        if len(values) != n:
            return Malformed(name, f'{len(values)} values', f'{n} poses')
        if not np.isfinite(values).all():
            return Malformed(name, values.tolist(), 'not finite')
    seconds, openings, confidences = columns.values()
    if seconds[0] != 0 or not (np.diff(seconds) > 0).all():
        return Malformed('seconds', seconds.tolist(), 'should begin with 0 and increase')
    T = []
    for i, pose in enumerate(message.poses):
        try:
            T.append(read_pose(pose))
        except InvalidInputError as error:
            return Malformed(f'poses[{i}]', pose, str(error))
    return Plan(message.id, np.array(T[1:]), openings[1:], seconds[1:], stamp, T[0], float(openings[0]),
                confidences[1:])
