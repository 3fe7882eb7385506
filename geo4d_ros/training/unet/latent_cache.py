"""Latents, image tokens and masks of training windows, encoded once and read back at the speed of the disk.

A cache is a zarr v3 group with one sharded array per kind, a window per row. It knows what made it (the encoders'
hash, the sizes, the convention, the data): with anything else it is refused. Targets are kept as mean and spread, so
that every pass over a window draws its own sample, as without the cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zarr
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from geo4d_ros.errors import DatasetError, require
from geo4d_ros.generation.unet.pipeline import Geo4dPipeline
from geo4d_ros.training.unet.batches import Clips, Latents, draw_targets, encode_clips
from geo4d_ros.training.unet.config import LossConfig
from geo4d_ros.training.unet.losses import stream_masks

_SHARD = 64  # windows per file
_MASKS = ('counted', 'gripper', 'moved')


@dataclass
class Prepared:
    """A batch at latent level, as the losses need it. B samples, S streams, T frames."""

    index: torch.Tensor  # (B,)
    latents: Latents
    masks: tuple[torch.Tensor, ...]  # counted, gripper, moved: (B, S, T, C or 1, h, w)
    expected: torch.Tensor  # (B, T)
    clips: Clips | None = None  # the pixels, where they were not cached


def prepare(clips: Clips, pipeline: Geo4dPipeline, loss: LossConfig, seed: int) -> Prepared:
    """Encode a batch of pixels."""
    latents = draw_targets(*encode_clips(clips, pipeline), clips.index, seed)
    return Prepared(clips.index, latents, stream_masks(clips, pipeline, loss), clips.expected, clips)


def identity(pipeline: Geo4dPipeline, windows: Dataset, loss: LossConfig) -> str:
    """sha256 of everything that a cached window depends on."""
    digest = hashlib.sha256()
    for module in (pipeline.points_vae, pipeline.rgb_vae, pipeline.image_encoder):
        for name, weight in (module.state_dict() if module is not None else {}).items():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().float().contiguous().numpy().tobytes())
    settings, unet = pipeline.config, pipeline.unet.config
    facts = [settings.height, settings.width, settings.frames, settings.views, settings.convention,
             settings.condition_frame, unet.points, unet.predict_residual, list(unet.residual_std), unet.token_routing,
             loss.mask_invalid, windows.seed, [str(p.name) for p in windows.episodes]]
    digest.update(json.dumps(facts).encode())
    return digest.hexdigest()


def write_cache(
    path: Path, windows: Dataset, count: int, clips_of: Callable[[dict], Clips], pipeline: Geo4dPipeline,
    loss: LossConfig
) -> None:
    """Encode windows 0 .. count-1 into a new cache at `path`; it gets its name when it is complete."""
    temporary = path.with_name(f'.{path.name}')
    root = zarr.create_group(store=temporary, overwrite=True)
    arrays: dict[str, zarr.Array] = {}
    rows: list[dict[str, np.ndarray]] = []
    for index in tqdm(range(count), desc='latent cache'):
        batch = {name: value[None] for name, value in windows[index].items()}
        rows.append(_row(clips_of(batch), pipeline, loss))
        if len(rows) == _SHARD or index == count - 1:
            first = index + 1 - len(rows)
            for name in rows[0]:
                if name not in arrays:
                    shape = rows[0][name].shape
                    arrays[name] = root.create_array(
                        name, shape=(count, *shape), dtype=rows[0][name].dtype, chunks=(1, *shape),
                        shards=(_SHARD, *shape))
                arrays[name][first : index + 1] = np.stack([row[name] for row in rows])
            rows = []
    root.attrs['identity'] = identity(pipeline, windows, loss)
    temporary.rename(path)


def _row(clips: Clips, pipeline: Geo4dPipeline, loss: LossConfig) -> dict[str, np.ndarray]:
    latents, spread = encode_clips(clips, pipeline)
    row = {'mean': latents.clean, 'condition': latents.condition, 'state': latents.state, 'measured': latents.measured}
    if latents.tokens is not None:
        row['tokens'] = latents.tokens
    if bool((spread > 1e-5).any()):
        row['spread'] = spread
    numbers = {name: value[0].cpu().numpy().astype(np.float32) for name, value in row.items()}
    for name, mask in zip(_MASKS, stream_masks(clips, pipeline, loss), strict=True):
        numbers[name] = mask[0].cpu().numpy() > 0.5
    numbers['expected'] = clips.expected[0].cpu().numpy() > 0.5
    numbers['index'] = clips.index[0].cpu().numpy()
    return numbers


class CachedWindows(Dataset):
    """Windows of a cache; index i is row i modulo the number of rows, with noise of its own in every pass."""

    def __init__(self, path: Path, expected: str) -> None:
        """Raise DatasetError when the cache is missing, incomplete or was made by other encoders or data."""
        try:
            self.root = zarr.open_group(store=path, mode='r')
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f'{path} is not a readable latent cache ({error}); make it again') from error
        made_by = self.root.attrs.get('identity')
        require(made_by == expected, f'{path} was made with other encoders, sizes or data '
                f'({str(made_by)[:12]}, this run {expected[:12]}); make it again', DatasetError)
        self.rows = self.root['mean'].shape[0]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Tensors of one window."""
        item = {name: torch.from_numpy(np.asarray(array[index % self.rows])) for name, array in self.root.arrays()}
        return {**item, 'index': torch.tensor(index)}


def from_cache(
    batch: dict[str, torch.Tensor], device: torch.device, modalities: tuple[int, ...], seed: int
) -> Prepared:
    """A collated batch of `CachedWindows` for the losses."""
    b = {name: value.to(device) for name, value in batch.items()}
    latents = Latents(b['mean'], b['condition'], b.get('tokens'), b['state'], b['measured'], modalities)
    if 'spread' in b:
        latents = draw_targets(latents, b['spread'], batch['index'], seed)
    return Prepared(batch['index'], latents, tuple(b[name].float() for name in _MASKS), b['expected'].float())


