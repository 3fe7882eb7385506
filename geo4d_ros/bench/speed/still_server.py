"""A policy server without a model: frame 0 repeated, so that only the wire is measured. `python -m` runs it."""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.serving.server import Limits, PolicyServer
from geo4d_ros.types import Observation, Video4D

SIZE, FRAMES, DT = (96, 128), 10, 0.5


class StillGenerator:
    """Predicts that nothing moves, at the size of the shipped model; implements `VideoGenerator`."""

    name, frames, dt = 'still', FRAMES, DT

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """Frame 0 in every frame; a little of the colour differs by `seed`, as a painter's would."""
        views = [resize_frame(view, *SIZE) for view in observation.views]
        n, rng = FRAMES + 1, np.random.default_rng(seed)
        rgb = np.stack([[view.rgb] * n for view in views])
        rgb[:, 1:, 30:60, 40:80] = rng.integers(0, 256, rgb[:, 1:, 30:60, 40:80].shape, dtype=np.uint8)
        points = np.stack([unproject(view.depth, view.K) for view in views]).astype(np.float32)
        return Video4D(rgb, np.repeat(points[:, None], n, axis=1),
                       np.stack([[view.depth > 0] * n for view in views]),
                       observation.stamp + np.arange(n, dtype=np.int64) * round(DT * 1e9),
                       np.stack([view.K for view in views]), np.tile(np.eye(4), (len(views), 1, 1)))


async def _serve() -> None:
    server = PolicyServer(StillGenerator(), '0' * 64, size=SIZE, limits=Limits(clients=80, waiting=64))
    listening = await server.start('127.0.0.1', 0)
    port = listening.sockets[0].getsockname()[1]
    print(f'still: listening on remote://127.0.0.1:{port}', file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == '__main__':
    asyncio.run(_serve())
