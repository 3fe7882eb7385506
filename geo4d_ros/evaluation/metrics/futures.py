"""Several sampled futures of one observation: is one of them right, and is their spread as large as their error?"""

from __future__ import annotations

import numpy as np

from geo4d_ros.errors import require

NINETY_OF_3D = 2.5003  # radius that holds 90 % of a 3D Gaussian, in standard deviations of one axis


def future_figures(positions: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Figures of K sampled gripper paths, positions (K, T, 3), against the one that happened, true (T, 3) [m].

    one_cm: mean error of the first sample; best_of_k_cm: of the sample nearest over the whole path; spread_cm and
    error_cm: root mean square distance of the samples (unbiased) and of the truth from the samples' mean. A calibrated
    model has as much of one as of the other, and the truth within the 90 % radius of the spread in 90 % of the steps
    (covered_90). Raises InvalidInputError for fewer than two samples.
    """
    k = len(positions)
    require(k >= 2 and positions.shape[1:] == true.shape,
            f'futures should be (K >= 2, T, 3) against (T, 3) but got {positions.shape}, {true.shape}')
    distance = 100 * np.linalg.norm(positions - true, axis=-1)
    middle = positions.mean(axis=0)
    # The mean of K samples is itself off by 1/K of their variance.
    variance = 1e4 * ((positions - middle) ** 2).sum(axis=-1).sum(axis=0) / (k - 1) * (1 + 1 / k)
    error = 100 * np.linalg.norm(middle - true, axis=-1)
    return {'k': float(k), 'one_cm': float(distance[0].mean()), 'best_of_k_cm': float(distance.mean(axis=1).min()),
            'spread_cm': float(np.sqrt(variance.mean())), 'error_cm': float(np.sqrt((error**2).mean())),
            'covered_90': float((error <= NINETY_OF_3D * np.sqrt(variance / 3)).mean())}
