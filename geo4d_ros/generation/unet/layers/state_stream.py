"""The optional state stream: gripper pose and opening denoised jointly with the video (after UWM and X-WAM).

A gripper state is 10 numbers: translation [m] (3), the first two rotation columns (6), opening (1),
in the reference optical frame; see `encode_states`. It is an aid and a cross-check, off in the
faithful presets.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

STATE_DIM = 10
# Typical size of a state's change over the horizon; the stream denoises changes divided by it.
STATE_STD = (0.15, 0.15, 0.15, *(0.3,) * 6, 0.5)
_OPENING_UNIT_M = 0.08  # a common stroke; brings the opening to the size of the other numbers


def encode_states(T_ref_gripper: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """(..., 10) float32 of poses (..., 4, 4) and openings (...) [m]."""
    rotation = np.swapaxes(T_ref_gripper[..., :3, :2], -1, -2).reshape(*T_ref_gripper.shape[:-2], 6)
    parts = [T_ref_gripper[..., :3, 3], rotation, opening[..., None] / _OPENING_UNIT_M]
    return np.concatenate(parts, axis=-1).astype(np.float32)


def decode_states(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses (..., 4, 4) float64 with orthonormal rotations, and openings (...) >= 0 [m], of (..., 10) numbers."""
    states = states.astype(np.float64)
    x, y = states[..., 3:6], states[..., 6:9]
    x = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
    y = y - (x * y).sum(-1, keepdims=True) * x
    y = y / np.maximum(np.linalg.norm(y, axis=-1, keepdims=True), 1e-9)
    T = np.zeros((*states.shape[:-1], 4, 4))
    T[..., :3, 0], T[..., :3, 1], T[..., :3, 2] = x, y, np.cross(x, y)
    T[..., :3, 3] = states[..., :3]
    T[..., 3, 3] = 1
    return T, np.maximum(states[..., 9] * _OPENING_UNIT_M, 0.0)


class StateStream(nn.Module):
    """Adds the noisy and the measured state to every frame's time embedding; reads the answer off the mid features."""

    def __init__(self, embedding_dim: int, feature_dim: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(2 * STATE_DIM, embedding_dim), nn.SiLU(), nn.Linear(embedding_dim, embedding_dim)
        )
        self.head = nn.Sequential(
            nn.Linear(2 * feature_dim + 2 * STATE_DIM, embedding_dim),
            nn.SiLU(),
            nn.Linear(embedding_dim, STATE_DIM),
        )

    def inputs(self, noisy: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        """(B, T, 20) of the noisy future states (B, T, 10) and the measured one (B, 10)."""
        return torch.cat([noisy, measured[:, None].expand_as(noisy)], dim=-1)

    def predict(self, features: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """State v-prediction (B, T, 10) from the reference streams' features (B, S, T, C, h, w)."""
        pooled = torch.cat([features.mean((1, 4, 5)), features.amax((1, 4, 5))], dim=-1)
        return self.head(torch.cat([pooled, inputs], dim=-1))
