"""The two-view network's parts compiled by OpenVINO for the CPU: the same outputs in less time.

The parts are compiled when they first run, for the shapes they see. What stays in torch: the geometric hints
(scattered pixels, the arm's bones) and the frame-0 segmentation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from geo4d_ros.errors import BackendUnavailableError
from geo4d_ros.generation.two_view.encoder import Scene
from geo4d_ros.generation.two_view.network import TwoViewNetwork

INSTALL = "device openvino needs the package openvino: pip install 'geo4d_ros[openvino]', or use device cpu"


def require_openvino() -> Any:
    """The openvino module; BackendUnavailableError says how to get it."""
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError(INSTALL) from error
    return openvino


def accelerate(network: TwoViewNetwork) -> TwoViewNetwork:
    """`network` with its encoder, state head and decoder run by OpenVINO, in place; inference only."""
    require_openvino()
    network.encoder = FastEncoder(network.encoder)
    network.state_head = FastStateHead(network.state_head)
    if network.decoder is not None:
        network.decoder = FastDecoder(network.decoder)
    return network


class Compiled:
    """A module of tensors in, tuple of tensors out, compiled for every set of input shapes it meets."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval()
        self._models: dict[tuple[torch.Size, ...], Any] = {}

    def __call__(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """Float32 and bool tensors on the CPU -> the module's outputs."""
        key = tuple(t.shape for t in tensors)
        if key not in self._models:
            self._models[key] = self._compile(tensors)
        result = self._models[key]([t.contiguous().numpy() for t in tensors])
        return [torch.from_numpy(result[i]) for i in range(len(result))]

    def _compile(self, tensors: tuple[torch.Tensor, ...]) -> Any:
        ov = require_openvino()
        with torch.no_grad():
            model = ov.convert_model(self._module, example_input=tensors, input=[list(t.shape) for t in tensors])
        # Single precision, since outputs are to be the same; as many threads as torch has been given.
        settings = {'INFERENCE_PRECISION_HINT': 'f32', 'PERFORMANCE_HINT': 'LATENCY',
                    'INFERENCE_NUM_THREADS': torch.get_num_threads()}
        return ov.Core().compile_model(model, 'CPU', settings)


class _EncoderTensors(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, *observed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        s = self.encoder(*observed)
        return s.features, s.tokens, s.queries, s.points, s.valid, s.camera


class _HeadTensors(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor, queries: torch.Tensor, points: torch.Tensor,
                valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        unused = features.new_zeros(0)
        return self.head(Scene(features, unused, queries, points, valid, unused))[-1]


class _DecoderTensors(nn.Module):
    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: torch.Tensor, tokens: torch.Tensor, points: torch.Tensor, valid: torch.Tensor,
                camera: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self.decoder(Scene(features, tokens, features.new_zeros(0), points, valid, camera), *rest)
        return out['motion'], out['rgb'], out['depth']


class FastEncoder(nn.Module):
    """`Encoder` by OpenVINO."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._run = Compiled(_EncoderTensors(encoder))

    def forward(self, *observed: torch.Tensor) -> Scene:
        """See `Encoder.forward`."""
        features, tokens, queries, points, valid, camera = self._run(*observed)
        return Scene(features, tokens, queries, points, valid.bool(), camera)


class FastStateHead(nn.Module):
    """`StateHead` by OpenVINO; only the best estimate comes out."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self._run = Compiled(_HeadTensors(head))

    def forward(self, scene: Scene) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """See `StateHead.forward`."""
        T, opening = self._run(scene.features, scene.queries, scene.points, scene.valid)
        return [(T, opening)]


class FastDecoder(nn.Module):
    """`Decoder` by OpenVINO."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self._run = Compiled(_DecoderTensors(decoder))

    def forward(self, scene: Scene, *rest: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """See `Decoder.forward`."""
        scene_tensors = (scene.features, scene.tokens, scene.points, scene.valid, scene.camera)
        given = [t for t in rest if t is not None]  # no bones where the model has none
        return dict(zip(('motion', 'rgb', 'depth'), self._run(*scene_tensors, *given), strict=True))
