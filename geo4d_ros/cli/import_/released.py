"""`geo4d import 4dgen CKPT --out OUT`: convert a checkpoint that the paper's authors released."""

from __future__ import annotations

import argparse
from pathlib import Path

from geo4d_ros.cli.import_.svd import save_import


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source files and destination."""
    parser.add_argument('checkpoint', type=Path, help='Lightning .ckpt (or its state_dict as .safetensors)')
    parser.add_argument('--out', type=Path, required=True, help='directory of the new checkpoint')
    parser.add_argument('--vae', type=Path, help='directory with pointmap.ckpt and color.ckpt or rgb.ckpt; '
                        'only needed when the checkpoint lacks the autoencoders')
    parser.add_argument('--image-encoder', type=Path, help='CLIP image encoder in transformers layout; '
                        'only needed when the checkpoint lacks it')
    parser.add_argument('--head-dim', type=int, default=64, help='channels per attention head of the U-Net')
    parser.add_argument('--clip-heads', type=int, default=16, help='attention heads of the image encoder')


def run(args: argparse.Namespace) -> int:
    """Convert and report every key."""
    from geo4d_ros.generation.checkpoints.released import import_released

    pipeline, report = import_released(
        args.checkpoint, args.vae, args.image_encoder, args.head_dim, args.clip_heads)
    return save_import(pipeline, report, args.out)
