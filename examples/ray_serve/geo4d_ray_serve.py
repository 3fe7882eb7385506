"""One address for many cells, many copies of the model behind it, by Ray Serve.

    python examples/ray_serve/geo4d_ray_serve.py --replicas 2 --port 8642
    geo4d predict --generator remote://127.0.0.1:8642 --from-sim apple --out outputs/look

Cells speak the protocol of `geo4d serve` to a front in this process; every prediction goes to the least busy replica, a
few at a time where they wait. A replica that dies is replaced, and its requests are asked again elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from typing import Any

from geo4d_ros.errors import PeerLostError, PredictionTimeoutError
from geo4d_ros.generation.remote.arrays import Budget, pack, unpack
from geo4d_ros.generation.remote.messages import decode, encode
from geo4d_ros.serving.access import check_exposure, server_context
from geo4d_ros.serving.server import Limits, PolicyServer
from geo4d_ros.types import Observation, Video4D

os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')  # nobody is told about this cluster

from ray import serve
from ray.exceptions import RayActorError, RayTaskError

UNFOLDED = 1 << 30  # bytes of one prediction's arrays
BATCH, BATCH_WAIT = 4, 0.01  # requests that a replica takes at once, and how long it waits for them [s]


@serve.deployment(max_ongoing_requests=2 * BATCH)
class Replica:
    """One copy of the model in a process of its own."""

    def __init__(self, checkpoint: str, device: str) -> None:
        from geo4d_ros.generation.loading import load_generator, picture_size
        from geo4d_ros.generation.manifest import checkpoint_sha256
        from geo4d_ros.resources import find_checkpoint

        directory = find_checkpoint(checkpoint)
        self._generator = load_generator(directory, device)
        self._about = {'name': self._generator.name, 'frames': self._generator.frames, 'dt': self._generator.dt,
                       'size': list(picture_size(self._generator)), 'model_sha256': checkpoint_sha256(directory)}
        self._sizes: list[int] = []

    def about(self) -> dict[str, Any]:
        """What a front has to know of the model, and the replica's process."""
        return {**self._about, 'pid': os.getpid(), 'largest_batch': max(self._sizes, default=0)}

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=BATCH_WAIT)
    async def predict(self, requests: list[bytes]) -> list[bytes]:
        """Videos of observations, in msgpack as on the wire. A model with `predict_batch` gets them in one pass."""
        self._sizes.append(len(requests))
        return await asyncio.to_thread(self._predict, requests)

    def _predict(self, requests: list[bytes]) -> list[bytes]:
        asked = [unpack(request) for request in requests]
        observations = [decode(Observation, a['observation'], Budget(UNFOLDED), 'observation') for a in asked]
        seeds = [a['seed'] for a in asked]
        together = getattr(self._generator, 'predict_batch', None)
        videos = together(observations, seeds) if together else \
            [self._generator.predict(o, s) for o, s in zip(observations, seeds, strict=True)]
        return [pack(encode(video)) for video in videos]


class Fleet:
    """The replicas as one generator (`generation.protocol.VideoGenerator`); safe to ask from many threads."""

    def __init__(self, handle: Any, seconds: float = 60.0) -> None:
        self._handle, self._seconds = handle, seconds
        about = handle.about.remote().result(timeout_s=300.0)
        self.name, self.frames, self.dt = about['name'], about['frames'], about['dt']
        self.size, self.model_sha256 = tuple(about['size']), about['model_sha256']

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """Ask a replica, another one when it dies; PredictionTimeoutError or PeerLostError without an answer."""
        request, end = pack({'observation': encode(observation), 'seed': seed}), time.monotonic() + self._seconds
        while True:
            try:
                answer = self._handle.predict.remote(request).result(timeout_s=max(0.1, end - time.monotonic()))
                return decode(Video4D, unpack(answer), Budget(UNFOLDED), 'video')
            except TimeoutError as error:
                raise PredictionTimeoutError(f'no replica answered within {self._seconds:.0f} s') from error
            except RayTaskError as error:
                raise error.cause or error from None  # what the model raised
            except RayActorError as error:
                if time.monotonic() > end:
                    raise PeerLostError('every replica died') from error
                time.sleep(0.1)


def deploy(checkpoint: str, device: str, replicas: int, cpus: float = 1.0, gpus: float = 0.0) -> Any:
    """Start the replicas on the cluster that ray.init joined; their handle, once all are there."""
    serve.start(proxy_location='Disabled')  # cells come through the front, nobody by HTTP
    deployment = Replica.options(num_replicas=replicas, ray_actor_options={'num_cpus': cpus, 'num_gpus': gpus})
    return serve.run(deployment.bind(checkpoint, device), name='geo4d', route_prefix=None)


def front(fleet: Fleet, replicas: int, **access: Any) -> PolicyServer:
    """The cells' side: as many predictions at once as the replicas take."""
    return PolicyServer(fleet, fleet.model_sha256, size=fleet.size,
                        limits=Limits(waiting=4 * BATCH * replicas, at_once=BATCH * replicas), **access)


def main(argv: list[str] | None = None) -> int:
    """Serve until ctrl-C or SIGTERM."""
    import ray

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--checkpoint', default='geo4d-sim-small', help='directory or shipped name, on every machine')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--replicas', type=int, default=2)
    parser.add_argument('--gpus', type=float, default=0.0, help='of a replica; 0.5 lets two share one')
    parser.add_argument('--ray', default=None, help='HOST:PORT of a cluster, or auto; without: this machine alone')
    parser.add_argument('--host', default='127.0.0.1')
    parser.add_argument('--port', type=int, default=8642)
    parser.add_argument('--tls-cert'), parser.add_argument('--tls-key')
    args = parser.parse_args(argv)
    token, tls = os.environ.get('GEO4D_TOKEN') or None, server_context(args.tls_cert, args.tls_key)
    check_exposure(args.host, token, tls is not None, False)
    ray.init(args.ray, include_dashboard=False)
    try:
        fleet = Fleet(deploy(args.checkpoint, args.device, args.replicas, gpus=args.gpus))
        server = front(fleet, args.replicas, token=token, tls=tls)
        asyncio.run(_listen(server, args.host, args.port))
        server.close()
    finally:
        serve.shutdown()
        ray.shutdown()
    return 0


async def _listen(server: PolicyServer, host: str, port: int) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    listening = await server.start(host, port)
    print(f'listening on {host}:{listening.sockets[0].getsockname()[1]}', file=sys.stderr, flush=True)
    await ended.wait()
    listening.close()
    await listening.wait_closed()


if __name__ == '__main__':
    sys.exit(main())
