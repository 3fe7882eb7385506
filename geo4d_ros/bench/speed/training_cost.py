"""What training at the paper's size costs: parameters, memory, operations, hours and disk, counted without weights."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch.utils.flop_counter import FlopCounterMode

from geo4d_ros.bench.speed.loader import H100_BF16_PEAK, MFU, clip_flops
from geo4d_ros.generation.backbones.wan import Geo4dWanTransformer
from geo4d_ros.generation.unet.encoders.tiny_decoder import TinyTemporalDecoder
from geo4d_ros.generation.unet.memory import MemoryNeed, decode_bytes, denoise_bytes
from geo4d_ros.generation.unet.network import Geo4dUNet
from geo4d_ros.generation.unet.presets import _SVD_VAE

_GIB = 2**30
# float32 weights, gradients, two Adam moments and the average; 8-bit Adam keeps one byte per moment.
STATE_BYTES = {'adamw': 20, 'adamw8bit': 14}
GPUS = (('RTX 4060', 8), ('RTX 4060 Ti', 16), ('RTX 4090', 24), ('L40S', 48), ('H100', 80), ('H200', 141))
# stage -> steps of the shipped config, processes, forward passes per step and clip
STAGES = {'pointmap vae': 50000, 'diffusion': 100000, 'distillation, 1 step': 12000, 'points decoder': 20000}


def count(build: Any) -> int:
    """Parameters of a model built without weights."""
    with torch.device('meta'):
        return sum(p.numel() for p in build().parameters())


def saved_bytes(build: Any, forward: Any) -> int:
    """Bytes that a forward pass keeps for the backward one, counted on tensors without memory; parameters excepted."""
    total, seen = 0, set()
    with torch.device('meta'):
        model = build().to('meta', torch.bfloat16).requires_grad_(True)
        own = {id(p) for p in model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            if id(tensor) not in own and id(tensor.untyped_storage()) not in seen:
                seen.add(id(tensor.untyped_storage()))
                total += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            forward(model)
    return total


def unet_activations(checkpointing: bool) -> int:
    """Bytes kept by one clip of ten frames, all four streams, bf16."""
    def forward(unet: Geo4dUNet) -> None:
        if checkpointing:
            unet.enable_gradient_checkpointing()
        kind = torch.bfloat16
        unet.train()(torch.empty(1, 4, 10, 4, 32, 40, dtype=kind), torch.empty(1, 4),
                     torch.empty(1, 4, 4, 32, 40, dtype=kind), torch.empty(1, 4, 1, 1024, dtype=kind))

    return saved_bytes(Geo4dUNet, forward)


def small_stages() -> dict[str, dict[str, float]]:
    """Of the autoencoder's stage and the small decoder's, for one view's film of ten frames: what the forward pass
    keeps, the memory of what is frozen, and the operations of a training step."""
    frames, kind = 10, torch.bfloat16

    def code(vae: AutoencoderKLTemporalDecoder) -> None:
        latents = vae.encode(torch.empty(frames, 3, 256, 320, dtype=kind)).latent_dist.mode()
        vae.decode(latents, num_frames=frames)

    def decode(decoder: TinyTemporalDecoder) -> None:
        decoder(torch.empty(frames, 4, 32, 40, dtype=kind), frames)

    def vae() -> AutoencoderKLTemporalDecoder:
        return AutoencoderKLTemporalDecoder(**_SVD_VAE)

    frozen = count(vae) * 2 / _GIB
    return {
        'pointmap vae': {'activations_gib': saved_bytes(vae, code) / _GIB, 'frozen_gib': 0.0,
                         'flops': 3 * forward_flops(vae, code)},
        'points decoder': {'activations_gib': saved_bytes(TinyTemporalDecoder, decode) / _GIB, 'frozen_gib': frozen,
                           'flops': 3 * forward_flops(TinyTemporalDecoder, decode) + forward_flops(vae, code)},
    }


def smallest_gpu(gib: float) -> str:
    """The smallest card that has so much memory and a tenth to spare."""
    return next((name for name, own in GPUS if own > 1.1 * gib), 'several, sharded')


def forward_flops(build: Any, forward: Any) -> int:
    """Operations of a forward pass, counted on tensors without memory."""
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward(build().to('meta', torch.bfloat16))
    return counter.get_total_flops()


class CostReport(TypedDict):
    """The report of `geo4d benchmark training-cost`; stages: stage -> parameters, steps, memory [GiB] by what takes it
    (`states_gib_<optimizer>` among them), GPU hours and the smallest card."""

    parameters: dict[str, int]
    forward_flops_per_clip: int
    assumed_mfu: float
    stages: dict[str, dict[str, float | str]]
    activations_gib_per_clip: dict[str, float]
    inference_gib_bf16: dict[str, float]
    inference_smallest_gpu: dict[str, str]
    disk_gib: dict[str, float]
    note: str


def table() -> CostReport:
    """The report of `geo4d benchmark training-cost`. Nothing in it is measured: counted or computed."""
    counts = {'unet': count(Geo4dUNet), 'vae': count(lambda: AutoencoderKLTemporalDecoder(**_SVD_VAE)),
              'points decoder': count(TinyTemporalDecoder), 'wan': count(Geo4dWanTransformer)}
    activations = {'plain': unet_activations(False), 'checkpointed': unet_activations(True)}
    forward = clip_flops()
    passes = {'diffusion': 4.0, 'distillation, 1 step': 4.0 + 5.0}  # forward units per clip, recomputation included
    stages: dict[str, dict[str, float | str]] = {}
    small = small_stages()
    for stage, steps in STAGES.items():
        trained = {'pointmap vae': counts['vae'], 'points decoder': counts['points decoder']}.get(stage, counts['unet'])
        copies = 2 if stage.startswith('distillation') else 1
        states = {optimizer: trained * copies * size / _GIB for optimizer, size in STATE_BYTES.items()}
        entry: dict[str, float | str] = {'trained_parameters': trained * copies, 'steps': steps,
                                         **{f'states_gib_{name}': gib for name, gib in states.items()}}
        if stage in passes:
            frozen = counts['unet'] * 2 / _GIB if copies == 2 else 0.0
            kept, flops = activations['checkpointed'] / _GIB, passes[stage] * forward
        else:
            frozen, kept, flops = (small[stage][name] for name in ('frozen_gib', 'activations_gib', 'flops'))
        need = states['adamw8bit'] + frozen + kept
        entry |= {'needs_gib_one_gpu': need, 'gpu_hours_h100_batch_1': steps * flops / (H100_BF16_PEAK * MFU) / 3600,
                  'frozen_gib': frozen, 'activations_gib': kept,
                  'smallest_gpu': smallest_gpu(need)}
        stages[stage] = entry
    weights = (counts['unet'] + 2 * counts['vae'] + 632e6) * 2
    working = denoise_bytes(4, 10, 32, 40, 320, 2), decode_bytes(10, 256, 320, 128, 2)
    need = MemoryNeed(int(weights), *working).total / _GIB
    latents = 4 * 10 * 4 * 32 * 40 * 4 * 2  # four streams, ten frames, four channels, float32, mean and spread
    views = 25 * 16
    return {
        'parameters': counts, 'forward_flops_per_clip': forward, 'assumed_mfu': MFU, 'stages': stages,
        'activations_gib_per_clip': {k: v / _GIB for k, v in activations.items()},
        'inference_gib_bf16': {'svd': weights / _GIB, 'svd with working set, estimated': need,
                               'wan': counts['wan'] * 2 / _GIB},
        'inference_smallest_gpu': {'svd': smallest_gpu(need)},
        'disk_gib': {'raw_25_demos_16_views': views * 50 * 480 * 640 * (3 + 2 + 1) / _GIB,
                     'buffer_256x320': views * 50 * 256 * 320 * (3 + 4 + 4) / _GIB,
                     'latent_cache_2000_windows': 2000 * latents / _GIB},
        'note': 'counted on tensors without memory or computed from the data-sheet peak; nothing here is measured',
    }
