"""More cameras than the model predicts: the further ones mend the depth of those that it does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from geo4d_ros.errors import RegistrationError
from geo4d_ros.geometry.holes import fill_holes
from geo4d_ros.geometry.registration import register_views
from geo4d_ros.types import Observation, RgbdFrame

SHIPPED_VIEWS = 2  # what the shipped weights predict


@dataclass(frozen=True)
class Condensed:
    """The observation of the predicted views; filled pixels per view; further views that could not be placed."""

    observation: Observation
    filled: tuple[int, ...]
    unplaced: tuple[str, ...]


def predicted_views(generator: Any) -> int:
    """How many views a generator predicts, as it says itself."""
    for holder in (generator, getattr(generator, 'config', None), getattr(generator, 'metadata', None)):
        views = getattr(holder, 'views', None)
        if isinstance(views, int):
            return views
    return SHIPPED_VIEWS


def condense(observation: Observation, views: int) -> Condensed:
    """The first `views` views of an observation, holes of their depth filled from the further ones.

    A further view is placed by registration, from the pictures alone as the second one is: no pose is needed. The
    filled depth is what registration, generator and tracker then read.
    """
    kept, filled, unplaced = list(observation.views[:views]), [0] * min(views, len(observation.views)), []
    for extra in observation.views[views:]:
        placed = False
        for i, view in enumerate(kept):
            mended = _mended(view, extra)
            if mended is not None:
                placed = True
                kept[i], count = mended
                filled[i] += count
        if not placed:
            unplaced.append(extra.frame_id)
    T = observation.T_ref_view
    return Condensed(replace(observation, views=tuple(kept), T_ref_view=None if T is None else T[:views]),
                     tuple(filled), tuple(unplaced))


def _mended(view: RgbdFrame, extra: RgbdFrame) -> tuple[RgbdFrame, int] | None:
    try:
        T_view_extra = register_views(view, extra).T_ref_second
    except RegistrationError:
        return None
    return fill_holes(view, extra, T_view_extra)
