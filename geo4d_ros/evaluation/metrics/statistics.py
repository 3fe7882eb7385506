"""Intervals and percentiles that every report uses."""

from __future__ import annotations

from typing import TypedDict

import numpy as np


def bootstrap_interval(values: np.ndarray, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the mean of finite values (N,); NaN, NaN when there are none.

    One value per independent unit (episode), so that the frames of one clip do not pose as evidence.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return float('nan'), float('nan')
    index = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[index].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


class Summary(TypedDict):
    """Of n finite values; None instead of NaN, so that the report stays JSON."""

    mean: float | None
    ci95: list[float] | None
    n: int


def summary(values: np.ndarray) -> Summary:
    """mean, 95 % interval and n of the finite values; None instead of NaN, so that the report stays JSON."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) == 0:
        return {'mean': None, 'ci95': None, 'n': 0}
    low, high = bootstrap_interval(finite)
    return {'mean': round(float(finite.mean()), 5), 'ci95': [round(low, 5), round(high, 5)], 'n': len(finite)}


def percentiles_ms(seconds: list[float]) -> dict[str, float] | None:
    """p50 and p95 [ms] of durations [s]; None when there are none."""
    if not seconds:
        return None
    p50, p95 = np.percentile(np.asarray(seconds) * 1000, [50, 95])
    return {'p50': round(float(p50), 2), 'p95': round(float(p95), 2)}
