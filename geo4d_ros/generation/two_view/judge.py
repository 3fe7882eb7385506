"""Figures for a verdict from what the encoder sees: is the scene like training's, is the object where it belongs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

FILE = 'judge.safetensors'
_RIDGE = 1e-2  # of the mean variance: directions that training hardly shows count for something, not for all
_FOLDS = 6


@dataclass(frozen=True)
class SceneJudge:
    """mean (C,) and whiten (C, C) of a view's mean feature in training, and quantile (1,), the distance that 99.5 % of
    left-out training moments keep; done_weight (C,), done_bias (1,) of a logistic regression on the mean feature of the
    object."""

    mean: np.ndarray
    whiten: np.ndarray
    quantile: np.ndarray
    done_weight: np.ndarray
    done_bias: np.ndarray

    @classmethod
    def fit(cls, views: np.ndarray, episodes: np.ndarray, objects: np.ndarray, done: np.ndarray) -> SceneJudge:
        """From mean features of training moments (N, V, C) and their episodes (N,), mean features of objects (M, C),
        and whether each is where it belongs (M,). The quantile is of moments whose episode is left out of the fit.
        """
        fold = np.random.default_rng(0).permutation(int(episodes.max()) + 1)[episodes] % _FOLDS
        left_out = []
        for f in range(_FOLDS):
            if (fold == f).any() and (fold != f).any():
                mean, whiten = _normal(views[fold != f])
                left_out.append(np.linalg.norm((views[fold == f] - mean) @ whiten, axis=-1).max(axis=1))
        quantile = np.quantile(np.concatenate(left_out), 0.995, keepdims=True)
        return cls(*_normal(views), quantile, *_logistic(objects, done))

    @classmethod
    def load(cls, directory: Path) -> SceneJudge | None:
        """The judge beside a network's weights; None where there is none."""
        path = directory / FILE
        return cls(**{k: v.astype(np.float64) for k, v in load_file(path).items()}) if path.is_file() else None

    def save(self, directory: Path) -> None:
        """Write it beside the network's weights; the manifest has to be written after."""
        save_file({k: np.ascontiguousarray(v, np.float32) for k, v in vars(self).items()}, directory / FILE)

    def figures(self, features: np.ndarray, objects: np.ndarray, seen: np.ndarray) -> dict[str, float]:
        """unfamiliar (1: 99.5 % of training moments are nearer) and, where an object is seen, done (0..1).

        features (V, C, h, w), objects (V, H, W) bool with H, W whole multiples of h, w, seen (V,) bool.
        """
        views = [f.mean(axis=(1, 2)) for f, s in zip(features, seen, strict=True) if s]
        distance = max(float(np.linalg.norm((v - self.mean) @ self.whiten)) for v in views)
        out = {'unfamiliar': distance / float(self.quantile[0])}
        middle = object_feature(features, objects & seen[:, None, None])
        if middle is not None:
            out['done'] = float(1 / (1 + np.exp(-np.clip(middle @ self.done_weight + self.done_bias[0], -50, 50))))
        return out


def object_feature(features: np.ndarray, objects: np.ndarray) -> np.ndarray | None:
    """Mean feature (C,) of the cells that show the object, weighted by its pixels; None where it is not seen."""
    height, width = features.shape[2:]
    cells = objects.reshape(len(objects), height, objects.shape[1] // height, width, -1).sum(axis=(2, 4))
    if not cells.any():
        return None
    return np.einsum('vchw,vhw->c', features, cells) / cells.sum()


def _normal(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (C,) of the vectors (..., C), and the matrix (C, C) that makes them round."""
    flat = views.reshape(-1, views.shape[-1])
    covariance = np.cov(flat.T)
    covariance += _RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return flat.mean(axis=0), vectors / np.sqrt(values) @ vectors.T


def _logistic(x: np.ndarray, y: np.ndarray, ridge: float = 1e-2, steps: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Weights (C,) and bias (1,) of a regularised logistic regression, classes of equal weight (Newton's method)."""
    middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    inputs = np.c_[(x - middle) / spread, np.ones(len(x))]
    weight = np.where(y, 0.5 / max(y.sum(), 1), 0.5 / max((~y).sum(), 1))
    penalty = ridge * np.diag([1.0] * x.shape[1] + [1e-6])
    w = np.zeros(inputs.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-np.clip(inputs @ w, -50, 50)))
        gradient = inputs.T @ (weight * (p - y)) + penalty @ w
        hessian = (inputs * (weight * p * (1 - p))[:, None]).T @ inputs + penalty
        w = w - np.linalg.solve(hessian, gradient)
    scaled = w[:-1] / spread
    return scaled, np.array([w[-1] - scaled @ middle])


__all__ = ['FILE', 'SceneJudge', 'object_feature']
