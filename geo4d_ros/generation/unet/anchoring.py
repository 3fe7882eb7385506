"""What the observation knows about the prediction's geometry: its depth scale and the views' relative pose.

Both use inputs only. The prediction's first frame is half a second after the observation, so most of
the scene has not moved, and medians and trimmed fits ignore what has.
"""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import RegistrationError
from geo4d_ros.geometry.transforms import fit_rigid, make_transform, transform_points

MIN_PIXELS = 100


def depth_scale(observed_z: np.ndarray, predicted_z: np.ndarray) -> float:
    """Median of observed / predicted depth (H, W) [m] over pixels valid in both; 1 below 100 such pixels.

    Multiplying the predicted points of the view by it removes the model's common depth bias.
    """
    good = (observed_z > 0) & (predicted_z > 0)
    if good.sum() < MIN_PIXELS:
        return 1.0
    return float(np.median(observed_z[good] / predicted_z[good]))


def view_similarity(
    own: np.ndarray, predicted: np.ndarray, valid: np.ndarray, rounds: int = 5
) -> tuple[np.ndarray, float]:
    """T_ref_view (4, 4) and scale s with predicted ~ s * T_ref_view(own): a view's pose from its own prediction.

    own (H, W, 3): the observation's points in the view's frame; predicted (H, W, 3): its first
    predicted frame, in the reference frame; valid (H, W) bool. Trimmed to the best 70 % each round.
    Raises RegistrationError below 100 valid pixels.
    """
    a, b = predicted[valid].astype(np.float64), own[valid].astype(np.float64)
    if len(a) < MIN_PIXELS:
        raise RegistrationError(
            f'only {len(a)} pixels are valid in the observation and in the prediction, '
            f"expected {MIN_PIXELS}; the view's pose cannot be estimated"
        )
    keep = np.ones(len(a), bool)
    for _ in range(rounds):
        spread = np.linalg.norm(b[keep] - b[keep].mean(0)), np.linalg.norm(a[keep] - a[keep].mean(0))
        scale = float(spread[1] / max(spread[0], 1e-9)) or 1.0
        T = fit_rigid(a[keep] / scale, b[keep])
        residual = np.linalg.norm(a - scale * transform_points(T, b), axis=1)
        keep = residual <= np.quantile(residual, 0.7)
    return make_transform(T[:3, :3], T[:3, 3]), scale
