"""Two ways to prepare data and read results: the released model's, and the corrected one that new training uses.

Weights are only right with the convention they were trained with, so a checkpoint carries its own:
`geo4d import 4dgen` sets 'released', everything else 'corrected'. docs/fidelity.md has the differences, measured.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Convention:
    """How one model was trained.

    moves_invalid_points: pixels without depth are the zero point, which the release moves to the reference
    frame like any other, so that they lie in the camera's centre; else they stay zero.
    target_quant_conv: target latents pass the autoencoder's quant_conv, which in the release belongs to the
    condition encoder only.
    resampling: 'bilinear' for colour and depth alike, or 'area' (depth: the nearest pixel).
    half_pixel_intrinsics: K of a resized image keeps integer pixel centres; else it is multiplied by the factor.
    gripper_pixel: which pixel of a cell speaks for it when masks are reduced to latents, 'centre' or 'corner'.
    frame_dropout: condition latents are dropped frame by frame, else clip by clip.
    counts_invalid_pixels: pixels without depth enter the training losses.
    """

    moves_invalid_points: bool
    target_quant_conv: bool
    resampling: str
    half_pixel_intrinsics: bool
    gripper_pixel: str
    frame_dropout: bool
    counts_invalid_pixels: bool


CONVENTIONS = {
    'corrected': Convention(False, True, 'area', True, 'centre', False, False),
    'released': Convention(True, False, 'bilinear', False, 'corner', True, True),
}
