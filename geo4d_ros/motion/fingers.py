"""The room that the fingers need: along the path as far apart as they are, where they open all of their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geo4d_ros.geometry.transforms import rotation_angle, translation_distance
from geo4d_ros.motion import gates
from geo4d_ros.motion.collision import CollisionChecker, Contact
from geo4d_ros.motion.gates import Prefix
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.reasons import Reason

_RELEASE_TURN = np.radians(10)


@dataclass(frozen=True)
class Fingers:
    """How far the fingers stand apart along a path: `held`, a share of the stroke, up to and at sample `opens_at`,
    where the arm stands and they open; wide open from there on. A held spatula over the table would always
    hit it with fingers that are thought wide open.
    """

    held: float
    opens_at: int

    def share(self, first: int) -> float:
        """Of a stretch that begins at sample `first`."""
        return 1.0 if first >= self.opens_at else self.held

    def prefix(self, checker: CollisionChecker, q: np.ndarray) -> Prefix:
        """Samples of q (N, n) before the first collision; where the fingers open, all of their way has to be free.

        What is held is there until then.
        """
        until = min(self.opens_at + 1, len(q))
        empty = checker.without_held
        hit = checker.first_collision(q[:until], self.held)
        if hit is None and until > self.opens_at and not self.sweep_is_free(checker, q[self.opens_at]):
            hit = (empty.first_collision(q[self.opens_at:until], 1.0)
                   or Contact(0, 'the opening fingers and the scene', Reason.COLLISION))
            hit = hit._replace(sample=self.opens_at)
        if hit is None:
            hit = empty.first_collision(q[until:], 1.0)
            hit = hit and hit._replace(sample=until + hit.sample)
        return (len(q), None) if hit is None else (hit.sample, hit.refusal)

    def checker(self, checker: CollisionChecker, first: int) -> CollisionChecker:
        """The checker of a stretch that begins at sample `first`: without what was let go by then."""
        return checker.without_held if first >= self.opens_at else checker

    def sweep_is_free(self, checker: CollisionChecker, q: np.ndarray) -> bool:
        """Whether the fingers touch nothing on their way from `held` to wide open, the arm at q (n,)."""
        return checker.without_held.fingers_are_free(q, self.held, 1.0)


def let_go_early(T: np.ndarray, T_goal: np.ndarray, limits: MotionLimits,
                 sweep_is_free: Callable[[int], bool]) -> tuple[int, float] | None:
    """The last sample of the safe path T (N, 4, 4) where the gripper can let go, and its distance from T_goal [m].

    None when that is not near T_goal (4, 4), where the plan lets go. A place that reads a few millimetres too low
    for the opened fingers would otherwise be refused again and again, with the object held over it.
    """
    away = translation_distance(T, T_goal)
    near = (away <= limits.release_reach) & (rotation_angle(T, T_goal) <= _RELEASE_TURN)
    for i in range(len(T) - 1, -1, -1):
        if not near[i]:
            return None
        allowed = not any(gate(T[i:i + 1], limits)[1] for gate in (gates.workspace_prefix, gates.table_prefix))
        if allowed and sweep_is_free(i):
            return i, float(away[i])
    return None
