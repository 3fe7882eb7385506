"""Random colours for scene parts."""

from __future__ import annotations

import colorsys

import numpy as np

Range = tuple[float, float]


def hue_colour(rng: np.random.Generator, hue: Range = (0, 1), saturation: Range = (0.3, 0.9),
               value: Range = (0.4, 0.95)) -> tuple[float, float, float]:
    """Random RGB in [0, 1] drawn uniformly from HSV ranges (hue wraps)."""
    h, s, v = rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value)
    return colorsys.hsv_to_rgb(h % 1.0, s, v)
