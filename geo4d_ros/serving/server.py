"""One generator behind a websocket: bounded in size, number and time, so that no client can hold up another."""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from geo4d_ros.errors import ConfigurationError, Geo4dError, InvalidInputError, require
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.generation.remote.arrays import Budget, pack, unpack
from geo4d_ros.generation.remote.client import Metadata
from geo4d_ros.generation.remote.messages import PROTOCOL, Code, decode, encode
from geo4d_ros.serving.access import token_fits
from geo4d_ros.tracking.protocol import Tracker
from geo4d_ros.types import GripperTrack, Observation, Video4D

LOG = logging.getLogger('geo4d.serve')
HEALTH = '/healthz'
FIELDS = {'id', 'seed', 'video', 'track', 'observation'}
UNFOLDED = 8  # how many times its wire size a request may unfold to


@dataclass(frozen=True)
class Limits:
    """What the server grants. Memory is at most about clients * 2 * request_bytes and one unfolded request a worker.

    at_once: predictions that the generator is asked for at the same time; more than one only where it can (a fleet).
    """

    request_bytes: int = 16 << 20
    clients: int = 64
    waiting: int = 4
    send_seconds: float = 30.0
    ping_seconds: float = 20.0
    at_once: int = 1


@dataclass(frozen=True)
class Question:
    """A request that keeps the contract; video, track: which of the two is wanted."""

    observation: Observation
    seed: int
    video: bool
    track: bool


class PolicyServer:
    """Answers predictions of `generator` (and `tracker`) in their order, `limits.at_once` at a time."""

    def __init__(self, generator: VideoGenerator, model_sha256: str, tracker: Tracker | None = None, *,
                 size: tuple[int, int] = (0, 0), views: int = 2, token: str | None = None,
                 tls: ssl.SSLContext | None = None, limits: Limits | None = None) -> None:
        self.generator, self.tracker, self.limits = generator, tracker, limits or Limits()
        self.metadata = Metadata(PROTOCOL, generator.name, model_sha256, generator.frames, generator.dt, views,
                                 *size, 'm', 'reference_optical', tracker.readout if tracker else None,
                                 self.limits.request_bytes)
        self._token, self._tls = token, tls
        self._model = ThreadPoolExecutor(self.limits.at_once, 'model')
        self._codec = ThreadPoolExecutor(2, 'codec')
        self._waiting = self._clients = 0

    async def start(self, host: str, port: int) -> Server:
        """Listen; port 0 takes a free one. ConfigurationError when the address cannot be had."""
        seconds = self.limits.ping_seconds
        try:
            return await serve(
                self._serve_client, host, port, ssl=self._tls, process_request=self._check_request, compression=None,
                max_size=self.limits.request_bytes, max_queue=1, open_timeout=seconds, ping_interval=seconds,
                ping_timeout=seconds, close_timeout=2.0, server_header=None, logger=_quiet())
        except OSError as error:
            raise ConfigurationError(f'cannot listen on {host}:{port}: {error.strerror or error}') from error

    def close(self) -> None:
        """End the workers."""
        self._model.shutdown(wait=True, cancel_futures=True)
        self._codec.shutdown(wait=True, cancel_futures=True)

    def _check_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == HEALTH:
            return connection.respond(http.HTTPStatus.OK, 'OK\n')
        if not token_fits(request.headers.get('Authorization'), self._token):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, 'a token is needed\n')
        if self._clients >= self.limits.clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, 'as many clients as there may be\n')
        return None

    async def _serve_client(self, connection: ServerConnection) -> None:
        """One client: a question, its answer, the next question. What is malformed is answered, too."""
        self._clients += 1
        try:
            await self._send(connection, pack(asdict(self.metadata)))
            async for raw in connection:
                answer = await self._answer(raw)
                await self._send(connection, answer)
        except (ConnectionClosed, TimeoutError):
            pass
        finally:
            self._clients -= 1

    async def _send(self, connection: ServerConnection, data: bytes) -> None:
        """A client that does not read what it asked for is cut off."""
        try:
            await asyncio.wait_for(connection.send(data), self.limits.send_seconds)
        except asyncio.TimeoutError:
            connection.transport.abort()
            raise TimeoutError from None

    async def _answer(self, raw: Any) -> bytes:
        clock, loop = Clock(), asyncio.get_running_loop()
        request_id = None
        if self._waiting > self.limits.waiting:
            # Read no further than the number: a busy server has no time to unfold pictures.
            with contextlib.suppress(Geo4dError):
                request_id = _id((await loop.run_in_executor(self._codec, unpack, raw)).get('id'))
            return _error(request_id, Code.BUSY, f'{self._waiting} requests are under way')
        self._waiting += 1
        try:
            message = await loop.run_in_executor(self._codec, unpack, raw)
            request_id = _id(message.get('id'))
            question = await loop.run_in_executor(self._codec, self._read, message)
            clock.lap('decode')
            video, track = await loop.run_in_executor(self._model, self._predict, question, clock)
            return await loop.run_in_executor(self._codec, _reply, request_id, video, track, clock)
        except InvalidInputError as error:
            return _error(request_id, Code.BAD_REQUEST, str(error))
        except Exception as error:
            # Whatever a model raises, the server lives; the cause is in its log, not with strangers.
            LOG.exception('prediction failed')
            detail = str(error) if isinstance(error, Geo4dError) else type(error).__name__
            return _error(request_id, Code.FAILED, detail)
        finally:
            self._waiting -= 1

    def _read(self, message: dict[str, Any]) -> Question:
        require(set(message) == FIELDS, f'a request has the fields {", ".join(sorted(FIELDS))}')
        require(type(message['seed']) is int and 0 <= message['seed'] < 2**63, 'seed should be an integer, 0 or more')
        require(type(message['video']) is bool and type(message['track']) is bool, 'video and track should be booleans')
        require(self.tracker is not None or not message['track'], 'this server has no tracker; ask for the video')
        budget = Budget(UNFOLDED * self.limits.request_bytes)
        return Question(decode(Observation, message['observation'], budget, 'observation'), message['seed'],
                        message['video'], message['track'])

    def _predict(self, question: Question, clock: Clock) -> tuple[Video4D | None, GripperTrack | None]:
        clock.lap('wait')
        video = self.generator.predict(question.observation, question.seed)
        clock.lap('generate')
        track = None
        if question.track and self.tracker is not None:
            track = self.tracker.track(video, question.observation)
            clock.lap('track')
        clock.more = {k: v * 1e3 for k, v in video.timings.items()}
        return video if question.video else None, track


class Clock:
    """Milliseconds per stage of one answer."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self.laps: dict[str, float] = {}
        self.more: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """The time since the last lap belongs to `stage`."""
        now = time.monotonic()
        self.laps[stage] = (now - self._last) * 1e3
        self._last = now

    def milliseconds(self) -> dict[str, float]:
        """The model's own stages, then the server's, and their total."""
        return {**self.more, **self.laps, 'total': (time.monotonic() - self._start) * 1e3}


def _reply(request_id: int, video: Video4D | None, track: GripperTrack | None, clock: Clock) -> bytes:
    encoded = {'video': None if video is None else encode(video), 'track': None if track is None else encode(track)}
    clock.lap('encode')
    return pack({'id': request_id, **encoded, 'timings_ms': clock.milliseconds()})


def _error(request_id: int | None, code: Code, detail: str) -> bytes:
    return pack({'id': request_id, 'code': code.value, 'detail': detail[:300]})


def _id(value: Any) -> int:
    require(type(value) is int and 0 <= value < 2**63, 'id should be an integer, 0 or more')
    return int(value)


def _quiet() -> logging.Logger:
    """The library's remarks on broken handshakes are no news: anybody who knocks makes them."""
    logger = logging.getLogger('geo4d.serve.websocket')
    logger.setLevel(logging.CRITICAL)
    return logger


class ServerThread:
    """A server in a thread of this process, for tests and examples: `with ServerThread(server) as port`."""

    def __init__(self, server: PolicyServer, host: str = '127.0.0.1', port: int = 0) -> None:
        self._server, self._place = server, (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name='serve', daemon=True)

    def __enter__(self) -> int:
        """The port it listens on."""
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(self._server.start(*self._place), self._loop)
        self._listening = listening.result(30)
        return self._listening.sockets[0].getsockname()[1]

    def __exit__(self, *error: Any) -> None:
        async def end() -> None:
            self._listening.close()
            await self._listening.wait_closed()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._server.close()
