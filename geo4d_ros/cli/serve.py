"""`geo4d serve`: the generator of a checkpoint for cells on other machines."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from geo4d_ros.cli.common import checkpoint_directory
from geo4d_ros.errors import InvalidInputError, require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `geo4d serve`."""
    from geo4d_ros.generation.remote.address import DEFAULT_PORT

    parser.add_argument('--checkpoint', type=Path, metavar='P', help='model directory (default: the shipped one)')
    parser.add_argument('--device', default='cpu', help='cpu, openvino, cuda, cuda:1, ... (default: %(default)s)')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on (default: %(default)s)')
    parser.add_argument('--port', type=int, default=DEFAULT_PORT, help='0: any free one (default: %(default)s)')
    parser.add_argument('--tls-cert', type=Path, metavar='PEM', help='certificate of this machine')
    parser.add_argument('--tls-key', type=Path, metavar='PEM', help='its key')
    parser.add_argument('--insecure', action='store_true',
                        help='listen to other machines without TLS or token; without it both are needed')
    parser.add_argument('--readout', choices=('none', 'fused', 'video', 'state'), default='none',
                        help='also offer tracks, read out so (default: %(default)s)')
    parser.add_argument('--clients', type=int, default=64, metavar='N', help='at a time (default: %(default)s)')
    parser.add_argument('--waiting', type=int, default=4, metavar='N',
                        help='requests that may wait; further ones are answered BUSY (default: %(default)s)')
    parser.add_argument('--max-request-mib', type=float, default=16.0, metavar='M', help='default %(default)s')


def run(args: argparse.Namespace) -> int:
    """Serve until told to end (ctrl-C, SIGTERM). The line `listening on ...` says that it is ready."""
    from geo4d_ros.generation.remote.address import TOKEN_VARIABLE
    from geo4d_ros.serving.access import check_exposure, server_context
    from geo4d_ros.serving.server import Limits, PolicyServer

    require(0 <= args.port < 65536, f'--port should lie in [0, 65535] but got {args.port}', InvalidInputError)
    require(args.clients >= 1 and args.waiting >= 0 and 0.01 <= args.max_request_mib <= 1024,
            '--clients should be at least 1, --waiting not negative, --max-request-mib in [0.01, 1024]')
    token = os.environ.get(TOKEN_VARIABLE) or None
    tls = server_context(args.tls_cert, args.tls_key)
    check_exposure(args.host, token, tls is not None, args.insecure)
    checkpoint = checkpoint_directory(args.checkpoint)
    from geo4d_ros.generation.loading import load_generator, picture_size
    from geo4d_ros.generation.manifest import checkpoint_sha256

    generator = load_generator(checkpoint, args.device)
    tracker = None
    if args.readout != 'none':
        from geo4d_ros.tracking.factory import create_tracker

        tracker = create_tracker(readout=args.readout)
    limits = Limits(int(args.max_request_mib * 2**20), args.clients, args.waiting)
    server = PolicyServer(generator, checkpoint_sha256(checkpoint), tracker, size=picture_size(generator), token=token,
                          tls=tls, limits=limits)
    try:
        asyncio.run(_serve(server, args.host, args.port, tls is not None))
    finally:
        server.close()
        if tracker is not None:
            tracker.close()
    return 0


async def _serve(server: object, host: str, port: int, tls: bool) -> None:
    from geo4d_ros.serving.server import PolicyServer

    assert isinstance(server, PolicyServer)
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    listening = await server.start(host, port)
    port = listening.sockets[0].getsockname()[1]
    print(f'{server.generator.name}: listening on {"remotes" if tls else "remote"}://{host}:{port}', file=sys.stderr,
          flush=True)
    await ended.wait()
    listening.close()
    await listening.wait_closed()
