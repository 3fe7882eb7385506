"""Exactly which keys of a source went where; nothing is dropped in silence."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from geo4d_ros.errors import CheckpointError


@dataclass
class KeyReport:
    """used: source key -> target keys; ignored: source key -> reason; initialised: target key -> how."""

    used: dict[str, list[str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    initialised: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line of counts."""
        return (
            f'{len(self.used)} keys used, {len(self.ignored)} ignored, '
            f'{len(self.initialised)} weights initialised anew'
        )

    def write(self, path: Path) -> None:
        """The whole report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + '\n')


def copy_weights(
    target: nn.Module,
    source: dict[str, torch.Tensor],
    key_of: dict[str, str],
    where: str,
    report: KeyReport,
    prefix: str = '',
) -> None:
    """Copy source[key_of[name]] into every parameter `name` of `target` that key_of lists.

    1x1 convolutions fill linear layers. Raises CheckpointError naming the first missing key or the
    first shape that does not fit; `where` names the source file.
    """
    parameters = target.state_dict()
    missing = sorted(key for key in key_of.values() if key not in source)
    if missing:
        raise CheckpointError(
            f'{where} lacks {len(missing)} of {len(key_of)} expected keys, first {missing[0]}: '
            'another kind of checkpoint, or another width'
        )
    with torch.no_grad():
        for name, key in key_of.items():
            value, want = source[key], parameters[name]
            if value.dim() == want.dim() + 2 and value.shape[-2:] == (1, 1):
                value = value[..., 0, 0]
            if value.shape != want.shape:
                raise CheckpointError(
                    f'{where}: {key} has shape {tuple(value.shape)}, expected '
                    f'{tuple(want.shape)}: another width or layout'
                )
            if not want.is_meta:
                want.copy_(value)
            report.used.setdefault(key, []).append(prefix + name)
