"""Products with fixed weights, rearranged once for the processor: oneDNN's matrix products and convolutions.

Inside `fixed_weights`, on the CPU, in float32, a weight is brought into oneDNN's own layout at its first use and kept
(of frozen modules also for the next time); biases, activations and sums are done while the result is in the registers.
Anywhere else (training, other devices and precisions, `torch.compile`, a torch without oneDNN) the same functions are
torch's own linear layer and convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import nn

# What follows from weights alone, while they are fixed.
_CONSTANTS: ContextVar[dict[tuple[int, str], torch.Tensor] | None] = ContextVar('constants', default=None)
_KEPT: WeakKeyDictionary[nn.Module, dict[str, tuple[tuple, torch.Tensor]]] = WeakKeyDictionary()
# For fewer rows, what a call of oneDNN costs beside the product is more than it saves.
_FEW_ROWS = 32
# The operators of torch's own compiler for frozen weights.
_OPERATORS = ('_reorder_linear_weight', '_linear_pointwise', '_convolution_pointwise')


@contextmanager
def fixed_weights() -> Iterator[None]:
    """Inside, no weight may change: rearranged weights and position embeddings are computed once."""
    token = _CONSTANTS.set({})
    try:
        yield
    finally:
        _CONSTANTS.reset(token)


def constant(module: nn.Module, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """`make()`, remembered for `module` inside `fixed_weights`."""
    known = None if torch.compiler.is_compiling() else _CONSTANTS.get()
    if known is None:
        return make()
    key = (id(module), name)
    if key not in known:
        known[key] = _kept(module, name, make)
    return known[key]


def _kept(module: nn.Module, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """`make()`, remembered between predictions too while the module is frozen and its weights are the same tensors.

    Weights that train are rearranged anew for every prediction: averages are put in place through `.data`, which
    leaves no trace. The rearranged copies double the memory of the weights.
    """
    parameters = list(module.parameters())
    if any(p.requires_grad or p.is_inference() for p in parameters):
        return make()
    signature = tuple((p.data_ptr(), p._version) for p in parameters)
    entries = _KEPT.setdefault(module, {})
    if name not in entries or entries[name][0] != signature:
        entries[name] = (signature, make())
    return entries[name][1]


@cache
def has_packed_products() -> bool:
    """Whether this torch has oneDNN and its operators for rearranged weights."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS)


def packs(x: torch.Tensor) -> bool:
    """Whether products of x use rearranged weights."""
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or _CONSTANTS.get() is None:
        return False
    return x.device.type == 'cpu' and x.dtype == torch.float32 and has_packed_products()


def product(
    owner: nn.Module,
    name: str,
    x: torch.Tensor,
    weight: Callable[[], torch.Tensor],
    bias: torch.Tensor | None,
    activation: str = 'none',
    plus: torch.Tensor | None = None,
    times: torch.Tensor | None = None,
) -> torch.Tensor:
    """x (..., k) @ weight().T (k, n) + bias, then GELU (`activation`), or + plus, or * times, both (..., n).

    `name` tells the weights of one owner apart.
    """
    rows = x.numel() // x.shape[-1]
    if rows < _FEW_ROWS or not packs(x):
        y = F.linear(x, constant(owner, name, weight), bias)
        y = F.gelu(y) if activation == 'gelu' else y
        y = y if plus is None else y + plus
        return y if times is None else y * times
    packed = constant(owner, f'{name} packed', lambda: torch.ops.mkldnn._reorder_linear_weight(weight(), rows))
    if plus is not None or times is not None:
        other, operation = (plus, 'add') if times is None else (times, 'mul')
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, packed, bias, operation)
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], 'none')


def linear(layer: nn.Linear, x: torch.Tensor, plus: torch.Tensor | None = None) -> torch.Tensor:
    """layer(x), + plus."""
    return product(layer, 'weight', x, lambda: layer.weight, layer.bias, plus=plus)


def convolution(
    owner: nn.Module,
    name: str,
    x: torch.Tensor,
    weight: Callable[[], torch.Tensor],
    bias: torch.Tensor | None,
    padding: tuple[int, int],
    stride: tuple[int, int] = (1, 1),
) -> torch.Tensor:
    """The convolution of x (N, C, h, w) with weight() (C', C, kh, kw); channels innermost when packed."""
    if not packs(x):
        return F.conv2d(x, constant(owner, name, weight), bias, stride, padding)
    pads, strides, one = list(padding), list(stride), [1, 1]

    def pack() -> torch.Tensor:
        dense = weight().contiguous().to_mkldnn()
        return torch._C._nn.mkldnn_reorder_conv2d_weight(dense, pads, strides, one, 1, list(x.shape))

    packed = constant(owner, f'{name} packed', pack)
    return torch.ops.mkldnn._convolution_pointwise(x, packed, bias, pads, strides, one, 1, 'none', [], '')


def flop_formulas() -> dict[Any, Callable[..., int]]:
    """For torch's FlopCounterMode: operations of the packed products, from the shapes it passes."""
    if not has_packed_products():
        return {}
    operators = torch.ops.mkldnn
    return {
        operators._linear_pointwise: lambda x, weight, *_, out_shape=None, **__: _flops(out_shape, x[-1]),
        operators._convolution_pointwise: lambda x, weight, *_, out_shape=None, **__: _flops(
            out_shape, weight[1] * weight[2] * weight[3]
        ),
    }


def _flops(out_shape: Any, terms: int) -> int:
    size = 2 * terms
    for side in out_shape:
        size *= side
    return size
