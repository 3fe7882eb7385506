"""Where the gripper mask comes from: the generator, the segmenter, colour and depth, kinematics, or files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from geo4d_ros.errors import ConfigurationError, InvalidInputError, require
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.robots.gripper import GripperModel, gripper_of
from geo4d_ros.tracking.clip import Chunk, Masks
from geo4d_ros.tracking.objective import covered
from geo4d_ros.tracking.outlines import rasterise

SOURCES = ('auto', 'generator', 'segmenter', 'colour')


class MaskSource(Protocol):
    """Gives the masks of a chunk; T_ref_gripper (4, 4) and opening [m] are frame 0's."""

    def __call__(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        """Masks of every view and frame."""
        ...


def generator_masks(chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
    """The mask that the generator predicted with the video. Raises InvalidInputError when it did not.

    It cannot tell the arm and the held object from the background: whatever is not gripper and lies at its depth
    may hide it. Without that the flange, which always covers part of the hand, pulls the pose by centimetres.
    """
    require(chunk.gripper_mask is not None,
            'the video carries no gripper mask; choose masks: segmenter, or a generator with a mask channel')
    mask = chunk.gripper_mask.astype(np.float32, copy=False)
    return Masks(mask, 'generator', occluder=1 - mask)


def kinematic_mask(gripper: GripperModel, T_view_gripper: np.ndarray, opening: float, K: np.ndarray,
                   size: tuple[int, int]) -> np.ndarray:
    """The gripper's own mesh projected into a view, (H, W) bool: a label for real robots, blind to occlusion.

    T_view_gripper (4, 4) tool frame in the optical frame, opening [m], K (3, 3), size (H, W).
    """
    vertices, faces, _ = gripper.posed(opening)
    raster = rasterise(transform_points(T_view_gripper, vertices), faces, K, size)
    return np.zeros(size, bool) if raster is None else covered(raster, size)


class ColourMasks:
    """Histogram of the gripper's colours learnt at frame 0 from its projected mesh, and a depth gate.

    Weak on grey robots before grey tables (Swain and Ballard 1991 with a background class): a named mode for
    cells without a segmenter, not a fallback.
    """

    def __init__(self, gripper: GripperModel, bins: int = 12) -> None:
        self.gripper, self.bins = gripper, bins

    def __call__(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        """Masks from colour, limited to depths that the gripper can have."""
        masks = np.zeros(chunk.depth.shape, np.float32)
        for view in range(chunk.views):
            T = chunk.T_view_ref[view] @ T_ref_gripper
            own = kinematic_mask(self.gripper, T, opening, chunk.K[view], chunk.size)
            if own.sum() < 8:
                continue
            index = self._index(chunk.rgb[view])
            ratio = self._ratio(index[0], own)
            near = np.abs(chunk.depth[view] - T[2, 3]) < 0.35
            masks[view] = np.where(near & (chunk.depth[view] > 0), ratio[index], 0)
            masks[view, 0] = own
        return Masks(masks, 'colour')

    def _index(self, rgb: np.ndarray) -> np.ndarray:
        cell = (rgb.astype(np.int64) * self.bins) // 256
        return (cell[..., 0] * self.bins + cell[..., 1]) * self.bins + cell[..., 2]

    def _ratio(self, index: np.ndarray, own: np.ndarray) -> np.ndarray:
        size = self.bins**3
        inside = np.bincount(index[own], minlength=size) / own.sum()
        outside = np.bincount(index[~own], minlength=size) / max((~own).sum(), 1)
        return (inside / np.maximum(inside + outside, 1e-9)).astype(np.float32)


class FileMasks:
    """Masks of SAM2 or any other tool: PNG files `view<V>/<frame:05d>.png`, non-zero = gripper."""

    def __init__(self, folder: Path) -> None:
        require(Path(folder).is_dir(), f'mask folder {folder} does not exist', ConfigurationError)
        self.folder = Path(folder)

    def __call__(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        """Masks resized by nearest pixel to the tracking size; every view and frame must have its file."""
        masks = np.zeros(chunk.depth.shape, np.float32)
        for view in range(chunk.views):
            for t in range(chunk.frames):
                masks[view, t] = self._read(self.folder / f'view{view}' / f'{t:05d}.png', chunk.size)
        return Masks(masks, 'files')

    @staticmethod
    def _read(path: Path, size: tuple[int, int]) -> np.ndarray:
        require(path.is_file(), f'mask {path} does not exist; expected view<V>/<frame:05d>.png per view and frame',
                ConfigurationError)
        try:
            with Image.open(path) as image:
                array = np.asarray(image.convert('L').resize(size[::-1], Image.Resampling.NEAREST))
        except OSError as error:
            raise ConfigurationError(f'mask {path} cannot be read: {error}; write an 8-bit PNG') from error
        return (array > 0).astype(np.float32)


def mask_source(name: str, gripper: GripperModel, segmenter: Path | str | None = None,
                folder: Path | None = None) -> MaskSource:
    """The source by name.

    'auto' takes the segmenter; where its weights are missing, or are the shipped ones and the gripper is another than
    theirs, the generator's mask. On 27 validation predictions the video's median position error was 1.9 cm with the
    segmenter, 2.4 cm with the generator's own mask. Tracks say in `details` which it was.

    'files' reads `folder`. Raises ConfigurationError for an unknown name, CheckpointError for missing weights.
    """
    if name == 'generator':
        return generator_masks
    if name == 'colour':
        return ColourMasks(gripper)
    if name == 'files':
        require(folder is not None, 'masks: files needs mask_folder', ConfigurationError)
        return FileMasks(folder)
    if name in ('segmenter', 'auto'):
        from geo4d_ros.tracking.segmentation.segmenter import Segmenter

        return _Auto(segmenter, gripper) if name == 'auto' else Segmenter.load(segmenter).masks
    raise ConfigurationError(f'masks should be one of {(*SOURCES, "files")} but got {name!r}')


class _Auto:
    def __init__(self, folder: Path | str | None, gripper: GripperModel) -> None:
        self._folder, self._source = folder, None
        self._is_known = folder is not None or gripper.sha256 == gripper_of().sha256

    def __call__(self, chunk: Chunk, T_ref_gripper: np.ndarray, opening: float) -> Masks:
        if self._source is None:
            from geo4d_ros.tracking.segmentation.segmenter import Segmenter, default_folder
            from geo4d_ros.tracking.weights import CONFIG

            folder = Path(self._folder) if self._folder is not None else default_folder()
            # A folder that is there but damaged raises; only none at all makes room for the generator's mask.
            absent = chunk.gripper_mask is not None and not (self._is_known and (folder / CONFIG).exists())
            self._source = generator_masks if absent else Segmenter.load(folder).masks
        return self._source(chunk, T_ref_gripper, opening)


def check_masks(masks: Masks, chunk: Chunk) -> None:
    """Raise InvalidInputError unless masks fit the chunk and are finite."""
    for name in ('gripper', 'fingers', 'occluder', 'fixture'):
        array = getattr(masks, name)
        if array is None:
            continue
        require(array.shape == chunk.depth.shape, f'{name} mask should be {chunk.depth.shape} but got {array.shape}')
        if not np.isfinite(array).all():
            raise InvalidInputError(f'{name} mask has NaN or infinite values')
