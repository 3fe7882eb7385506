"""What training the small networks of the tracker has in common: the learning rate over time and averaged weights."""

from __future__ import annotations

from typing import Any

import numpy as np


def set_learning_rate(optimiser: Any, highest: float, step: int, done: float) -> None:
    """50 steps up, then down along a cosine; `done`: share [0, 1] of the training that is over."""
    rate = highest * min(1.0, (step + 1) / 50) * max(0.0, 0.5 * (1 + float(np.cos(np.pi * done))))
    for group in optimiser.param_groups:
        group['lr'] = rate


class WeightAverage:
    """Exponential average of a network's weights, faster at first; counts (batch norm's) are taken as they are."""

    def __init__(self, network: Any, decay: float) -> None:
        self.decay, self._steps = decay, 0
        self.weights = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def update(self, network: Any) -> None:
        """Take in the network's weights after a step."""
        self._steps += 1
        decay = min(self.decay, self._steps / (self._steps + 10))
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                self.weights[key].mul_(decay).add_(value.detach(), alpha=1 - decay)
            else:
                self.weights[key].copy_(value)
