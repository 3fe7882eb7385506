"""Is there anything to do, and is this a scene the generator knows: a judgement beside every prediction.

The generator counts the pixels of the object it would handle and judges the scene (`Video4D.scene`), and its state
stream says whether it foresees any motion. What it does not report decides nothing: without figures the loop goes on.
Thresholds are those of `VerdictLimits`, calibrated as docs/results.md says.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from geo4d_ros.types import Verdict, Video4D


@dataclass(frozen=True)
class VerdictLimits:
    """object_pixels: fewer in all views together are no object; still_m: a predicted path that stays within,
    and an opening that changes by less than still_opening_m, is rest;
    closed_m: an opening below it may hold something; unfamiliar, done: a higher `Video4D.scene` figure of that name is
    a scene unlike the training's, an object where it belongs."""

    object_pixels: float = 8.0
    still_m: float = 0.02
    still_opening_m: float = 0.01
    closed_m: float = 0.074
    unfamiliar: float = 1.0
    done: float = 0.99


@dataclass(frozen=True)
class Judgement:
    """A verdict, what led to it in words, and the figures."""

    verdict: Verdict
    text: str = ''
    values: dict[str, float] = field(default_factory=dict)


PROCEED = Judgement(Verdict.PROCEED)


def judge(video: Video4D, opening: float | None = None, limits: VerdictLimits | None = None) -> Judgement:
    """Verdict on one prediction; opening [m] is the measured one: closed fingers may hide what they hold.

    UNFAMILIAR comes before the others: of a scene it does not know the generator's figures mean little.
    """
    limits = limits or VerdictLimits()
    values = figures(video)
    if values.get('unfamiliar', 0.0) > limits.unfamiliar:
        return Judgement(Verdict.UNFAMILIAR, f'unlike the training scenes: {values["unfamiliar"]:.2f}', values)
    may_hold = opening is not None and opening < limits.closed_m
    pixels = values.get('object_pixels')
    if pixels is not None and pixels < limits.object_pixels and not may_hold:
        return Judgement(Verdict.NOTHING_TO_DO, f'no object to handle: {pixels:.0f} pixels of one', values)
    if values.get('done', 0.0) > limits.done and not may_hold:
        return Judgement(Verdict.DONE, f'the object is where it belongs: {values["done"]:.2f}', values)
    excursion = values.get('excursion_m')
    still = excursion is not None and excursion < limits.still_m and values['opening_change_m'] < limits.still_opening_m
    if excursion is not None and still and not may_hold:
        return Judgement(Verdict.DONE, f'the prediction stays within {100 * excursion:.1f} cm', values)
    return Judgement(Verdict.PROCEED, '', values)


def figures(video: Video4D) -> dict[str, float]:
    """What the generator reports of the scene, and how far [m] its state stream moves the gripper."""
    values = dict(video.scene or {})
    if video.state is not None:
        positions = video.state.T_ref_gripper[:, :3, 3]
        values['excursion_m'] = float(np.linalg.norm(positions - positions[0], axis=1).max())
        values['opening_change_m'] = float(np.ptp(video.state.opening))
    return values
