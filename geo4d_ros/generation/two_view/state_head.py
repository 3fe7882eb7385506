"""The state stream's head: future gripper poses and openings by pointing at points of the scene."""

from __future__ import annotations

import torch
from torch import nn

from geo4d_ros.generation.two_view.encoder import BANDS, Scene
from geo4d_ros.generation.two_view.layers import fourier, fourier_size, pose_matrix, rotation_from_6d

IDENTITY_6D = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


class StateHead(nn.Module):
    """Coarse pose per frame from pointers onto the pointmap, refined by attending in the predicted pose's own frame.

    All poses are relative to the gripper at frame 0, so nothing depends on where the camera stands.
    """

    def __init__(self, channels: int, dim: int, pointers: int, refinements: int, max_opening: float = 0.08) -> None:
        super().__init__()
        self.pointers, self.max_opening = pointers, max_opening
        self.key = nn.Linear(channels + fourier_size(3, BANDS), 64)
        self.point = nn.Linear(dim, 64 * pointers)
        out = pointers + 3 + 6 + 1
        self.coarse = nn.Sequential(nn.Linear(dim + 3 * pointers, dim), nn.GELU(), nn.Linear(dim, out))
        self.refiners = nn.ModuleList([Refiner(channels, dim) for _ in range(refinements)])

    def forward(self, scene: Scene) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """[(T_g0_g (B, T, 4, 4), opening (B, T) [m])], coarse first, best last."""
        points = scene.points.flatten(1, 3)
        features = scene.features.permute(0, 1, 3, 4, 2).flatten(1, 3)
        hidden = ~scene.valid.flatten(1)
        keys = self.key(torch.cat([features, fourier(points, BANDS)], -1))
        asks = self.point(scene.queries).unflatten(-1, (self.pointers, 64))
        logits = torch.einsum('btmd,bnd->btmn', asks, keys) * 64**-0.5
        weights = logits.masked_fill(hidden[:, None, None], -1e4).softmax(-1)
        pointed = torch.einsum('btmn,bnd->btmd', weights, points)
        out = self.coarse(torch.cat([scene.queries, pointed.flatten(-2)], -1))
        share, offset, r6, opening = out.split([self.pointers, 3, 6, 1], -1)
        t = (share[..., None] * pointed).sum(-2) + 0.1 * offset
        R = rotation_from_6d(r6 * 0.3 + r6.new_tensor(IDENTITY_6D))
        result = [(pose_matrix(R, t), opening[..., 0].sigmoid() * self.max_opening)]
        queries = scene.queries
        for refiner in self.refiners:
            queries, T, opening_step = refiner(queries, result[-1][0], points, features, hidden)
            share = (result[-1][1] / self.max_opening).clamp(1e-4, 1 - 1e-4)
            logit = (share / (1 - share)).log() + opening_step  # not torch.logit, which OpenVINO lacks
            result.append((T, logit.sigmoid() * self.max_opening))
        return result


class Refiner(nn.Module):
    """One correction of every pose from what lies around it, seen in that pose's frame."""

    def __init__(self, channels: int, dim: int, heads: int = 4, size: int = 24) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        local = fourier_size(3, BANDS)
        self.key_scene, self.key_local = nn.Linear(channels, heads * size), nn.Linear(local, heads * size, bias=False)
        self.value_scene = nn.Linear(channels, heads * size)
        self.ask = nn.Linear(dim + 12, heads * size)
        self.mix = nn.Sequential(nn.Linear(dim + 12 + heads * (size + local), dim), nn.GELU(), nn.Linear(dim, dim))
        self.step = nn.Linear(dim, 10)
        nn.init.zeros_(self.step.weight)
        nn.init.zeros_(self.step.bias)

    def forward(self, queries: torch.Tensor, T: torch.Tensor, points: torch.Tensor, features: torch.Tensor,
                hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """queries (B, T, D), poses (B, T, 4, 4), points (B, N, 3), features (B, N, C), hidden (B, N)."""
        T = T.detach()
        R, t = T[..., :3, :3], T[..., :3, 3]
        local = torch.einsum('btij,btni->btnj', R, points[:, None] - t[:, :, None])
        code = fourier(local, BANDS)
        query = torch.cat([queries, R.flatten(-2), t * 3], -1)
        ask = self.ask(query).unflatten(-1, (self.heads, self.size))
        # key = scene part + local part: the local part is folded into the query side to stay small.
        weight = self.key_local.weight.unflatten(0, (self.heads, self.size))
        logits = torch.einsum('bthd,bnhd->bthn', ask, self.key_scene(features).unflatten(-1, (self.heads, self.size)))
        logits = logits + torch.einsum('bthc,btnc->bthn', torch.einsum('bthd,hdc->bthc', ask, weight), code)
        weights = (logits * self.size**-0.5).masked_fill(hidden[:, None, None], -1e4).softmax(-1)
        value = self.value_scene(features).unflatten(-1, (self.heads, self.size))
        seen = torch.cat([torch.einsum('bthn,bnhd->bthd', weights, value).flatten(-2),
                          torch.einsum('bthn,btnc->bthc', weights, code).flatten(-2)], -1)
        queries = queries + self.mix(torch.cat([query, seen], -1))
        move, r6, opening = self.step(queries).split([3, 6, 1], -1)
        R_new = R @ rotation_from_6d(r6 * 0.3 + r6.new_tensor(IDENTITY_6D))
        return queries, pose_matrix(R_new, t + torch.einsum('btij,btj->bti', R, move) * 0.1), opening[..., 0]
