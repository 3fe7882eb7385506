"""Memory pre-flight: what a prediction needs, said before it fails."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from geo4d_ros.errors import ConfigurationError

_GIB = 2**30
# Estimated live copies of the widest feature map at the worst moment; `geo4d benchmark generator` reports what
# follows from them beside the measured peak.
_UNET_COPIES = 14
_VAE_COPIES = 7


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes: weights, the U-Net's and the decoder's working sets (they never live together)."""

    weights: int
    denoise: int
    decode: int

    @property
    def total(self) -> int:
        """Peak bytes."""
        return self.weights + max(self.denoise, self.decode)


def weight_bytes(*modules: torch.nn.Module | None) -> int:
    """Bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for m in modules if m is not None for t in (*m.parameters(), *m.buffers()))


def denoise_bytes(streams: int, frames: int, height: int, width: int, channels: int, element: int) -> int:
    """Working set of one batched U-Net call on latents of height x width."""
    return _UNET_COPIES * streams * frames * height * width * channels * element


def decode_bytes(chunk: int, height: int, width: int, channels: int, element: int) -> int:
    """Working set of decoding `chunk` frames of height x width pixels."""
    return _VAE_COPIES * chunk * height * width * channels * element


def available_bytes(device: torch.device) -> int | None:
    """Free memory of a device; None where it cannot be told."""
    if device.type == 'cuda':
        return torch.cuda.mem_get_info(device)[0]
    if device.type == 'cpu':
        try:
            lines = Path('/proc/meminfo').read_text().splitlines()
        except OSError:
            return None
        kib = next((int(line.split()[1]) for line in lines if line.startswith('MemAvailable')), None)
        return None if kib is None else kib * 1024
    return None


def check_memory(need: MemoryNeed, device: torch.device, setting: str, weights_loaded: bool = True) -> None:
    """Raise ConfigurationError when `need` exceeds what `device` has free; `setting` names what was asked for."""
    free = available_bytes(device)
    wanted = need.total - (need.weights if weights_loaded else 0)
    if free is not None and wanted > free:
        raise ConfigurationError(
            f'{setting} needs about {wanted / _GIB:.1f} GiB more on {device} (weights {need.weights / _GIB:.1f}, '
            f'denoising {need.denoise / _GIB:.1f}, decoding {need.decode / _GIB:.1f}) but {free / _GIB:.1f} GiB are '
            'free; lower decode_chunk, use bfloat16, ask for fewer RGB views or enable_model_cpu_offload()'
        )
