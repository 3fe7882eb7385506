"""The generator's wait for the plan that a tracker in another process makes of its prediction."""

from __future__ import annotations

import threading

from geo4d_interfaces.msg import Plan as PlanMessage

from geo4d_ros.reasons import Reason, Refusal
from geo4d_ros.ros.serve.qos import STATE_QOS
from geo4d_ros.ros.wire.guard import Boundary
from geo4d_ros.ros.wire.plan_message import PLAN_BYTES, checked_plan, refusal_message
from geo4d_ros.ros.wire.prediction import Prediction


class PlanAnswer:
    """Keeps the newest message of /geo4d/plan."""

    def __init__(self, boundary: Boundary) -> None:
        self._plan: PlanMessage | None = None
        self._arrived = threading.Condition()
        boundary.subscribe(PlanMessage, 'geo4d/plan', checked_plan, self._receive, STATE_QOS, limit=PLAN_BYTES)

    def _receive(self, message: PlanMessage, number: int | None) -> None:
        with self._arrived:
            self._plan = message
            self._arrived.notify_all()

    def wait(self, prediction: Prediction, timeout_s: float) -> PlanMessage:
        """The plan of the prediction; a refusal in its place after `timeout_s`, an empty plan at once for 0."""
        if timeout_s == 0:
            return PlanMessage(id=prediction.plan)
        with self._arrived:
            if self._arrived.wait_for(lambda: self._plan and self._plan.id == prediction.plan, timeout_s):
                return self._plan
        refusal = Refusal(Reason.TRACKING_FAILED, f'no tracker answered within {timeout_s} s')
        return refusal_message(prediction.plan, prediction.observation.stamp, refusal)
