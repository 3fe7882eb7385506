"""A generator that runs elsewhere (`geo4d serve`), used as any other."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from geo4d_ros.errors import (
    CheckpointError,
    ConfigurationError,
    Geo4dError,
    InvalidInputError,
    PeerLostError,
    PredictionTimeoutError,
    require,
)
from geo4d_ros.generation.remote.address import TOKEN_VARIABLE, Address
from geo4d_ros.generation.remote.arrays import Budget, pack, unpack
from geo4d_ros.generation.remote.messages import PROTOCOL, Code, decode, encode
from geo4d_ros.geometry.resampling import resize_frame
from geo4d_ros.types import GripperTrack, Observation, Video4D

MAX_REPLY = 1 << 30  # bytes, also of the unfolded arrays
BUSY_WAIT = 0.05  # [s] until a busy server is asked again


@dataclass(frozen=True)
class Metadata:
    """What the server says of itself when a client connects. height, width [px]: 0 where the model takes any."""

    protocol: int
    model: str
    model_sha256: str
    frames: int
    dt: float
    views: int
    height: int
    width: int
    units: str
    frame: str
    tracker: str | None
    max_request_bytes: int


@dataclass(frozen=True)
class Reply:
    """One answer: the video and / or the track; timings_ms of the server's stages and of the whole trip; sizes."""

    video: Video4D | None
    track: GripperTrack | None
    timings_ms: dict[str, float]
    request_bytes: int
    reply_bytes: int


class RemoteGenerator:
    """Implements `generation.protocol.VideoGenerator`; connects when first asked and again after a loss.

    Thread-safe; one request at a time. A server that comes back with other weights is refused: the cell was
    started with a model, and that one alone answers.
    """

    def __init__(self, address: str | Address) -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self._lock = threading.Lock()
        self._connection: ClientConnection | None = None
        self._metadata: Metadata | None = None
        self._count = 0

    @property
    def metadata(self) -> Metadata:
        """As of the first connection; PeerLostError where there is none to be had."""
        with self._lock:
            if self._metadata is None:
                self._connect(time.monotonic() + self.address.timeout)
            assert self._metadata is not None
            return self._metadata

    @property
    def name(self) -> str:
        """The model's name and where it runs; only the place before the first connection."""
        place = f'{self.address.host}:{self.address.port}'
        return f'{self._metadata.model} at {place}' if self._metadata else place

    @property
    def frames(self) -> int:
        """Predicted frames T."""
        return self.metadata.frames

    @property
    def dt(self) -> float:
        """Seconds between frames."""
        return self.metadata.dt

    def predict(self, observation: Observation, seed: int = 0) -> Video4D:
        """The video, with the server's stages, `network` and `remote` (the whole trip) among its timings [s].

        Raises PeerLostError (no server, or it went away), PredictionTimeoutError (too slow or too busy),
        InvalidInputError (the server refused the observation or sent nonsense), ConfigurationError (token, TLS).
        """
        reply = self.ask(observation, seed)
        if reply.video is None:
            raise InvalidInputError('the server sent no video')
        return replace(reply.video, timings={k: v / 1e3 for k, v in reply.timings_ms.items()})

    def ask(self, observation: Observation, seed: int = 0, *, video: bool = True, track: bool = False) -> Reply:
        """Video and / or track of an observation; errors as `predict`."""
        start = time.monotonic()
        deadline, busy = start + self.address.timeout, False
        with self._lock:
            while True:
                self._connect(deadline)
                self._count += 1
                data, request_id = self._request(observation, seed, video, track), self._count
                answer, size = self._exchange(data, deadline, busy)
                if answer.get('id') != request_id:
                    self._drop()
                    raise InvalidInputError('the server answered another question')
                if answer.get('code') != Code.BUSY.value:
                    break
                busy = True
                if time.monotonic() + BUSY_WAIT > deadline:
                    raise PredictionTimeoutError(self._late(busy))
                time.sleep(BUSY_WAIT)
        reply = read_reply(answer, len(data), size)
        trip = (time.monotonic() - start) * 1e3
        served = reply.timings_ms.get('total', 0.0)
        return replace(reply, timings_ms={**reply.timings_ms, 'network': trip - served, 'remote': trip})

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self._drop()

    def _request(self, observation: Observation, seed: int, video: bool, track: bool) -> bytes:
        meta = self._metadata
        assert meta is not None
        if meta.height and meta.width:  # as the model itself would first thing: a tenth of the bytes
            views = tuple(resize_frame(view, meta.height, meta.width) for view in observation.views)
            observation = replace(observation, views=views)
        data = pack({'id': self._count, 'seed': seed, 'video': video, 'track': track,
                     'observation': encode(observation, self.address.compression)})
        require(len(data) <= meta.max_request_bytes, f'the request has {len(data)} bytes, the server takes '
                f'{meta.max_request_bytes}; serve with a larger --max-request-mib')
        return data

    def _exchange(self, data: bytes, deadline: float, busy: bool) -> tuple[dict[str, Any], int]:
        """Send and receive; any failure ends the connection, so that a late answer never meets the next question."""
        connection = self._connection
        assert connection is not None
        # Sending knows no timeout of its own: to a peer that reads nothing it would wait for ever.
        alarm = threading.Timer(deadline - time.monotonic(), connection.close_socket)
        alarm.daemon = True
        alarm.start()
        try:
            connection.send(data)
            raw = connection.recv(timeout=max(0.0, deadline - time.monotonic()))
            return unpack(raw), len(raw)
        except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
            self._drop()
            if time.monotonic() >= deadline or isinstance(error, TimeoutError):
                raise PredictionTimeoutError(self._late(busy)) from None
            raise PeerLostError(f'{self.address.uri} went away ({error}); is `geo4d serve` still running?') from None
        except Geo4dError:
            self._drop()
            raise
        finally:
            alarm.cancel()

    def _late(self, busy: bool) -> str:
        if busy:  # that the last question was cut off by the deadline is not the cause
            return f'{self.address.uri} is busy; serve with more replicas or ask less'
        return f'{self.address.uri} did not answer within {self.address.timeout:g} s'

    def _connect(self, deadline: float) -> None:
        if self._connection is not None and self._connection.state is State.OPEN:
            return
        self._drop()
        left = max(0.05, deadline - time.monotonic())
        try:
            self._connection = connect(
                self.address.uri, ssl=self.address.context(), additional_headers=self.address.headers(),
                compression=None, max_size=MAX_REPLY, open_timeout=left, close_timeout=0.5, proxy=None).__enter__()
            metadata = read_metadata(unpack(self._connection.recv(timeout=left)))
        except InvalidStatus as error:
            status = error.response.status_code
            if status == 401:
                raise ConfigurationError(f'{self.address.uri} wants another token; set {TOKEN_VARIABLE}') from None
            raise PeerLostError(f'{self.address.uri} turned the connection away with HTTP status {status}') from None
        except (OSError, WebSocketException, InvalidHandshake) as error:  # a TimeoutError is an OSError
            self._drop()
            raise PeerLostError(f'no server at {self.address.uri} ({error or type(error).__name__}); '
                                'start `geo4d serve` there') from None
        except Geo4dError:
            self._drop()
            raise
        if self._metadata is not None and metadata.model_sha256 != self._metadata.model_sha256:
            self._drop()
            raise CheckpointError(f'{self.address.uri} now serves other weights ({metadata.model_sha256[:12]} instead '
                                  f'of {self._metadata.model_sha256[:12]}); start this side again to accept them')
        self._metadata = metadata

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close_socket()


def read_metadata(message: dict[str, Any]) -> Metadata:
    """Checked metadata; InvalidInputError names what does not fit."""
    if 'code' in message:
        raise PeerLostError(f'the server refuses: {message.get("detail", message["code"])}')
    require(message.get('protocol') == PROTOCOL, f'the server speaks protocol {message.get("protocol")}, this side '
            f'{PROTOCOL}; install the same version on both')
    metadata = decode(Metadata, message, Budget(0), 'metadata')
    require(metadata.units == 'm' and metadata.frame == 'reference_optical' and metadata.frames >= 1
            and 0 < metadata.dt < 3600, 'the server uses other units or frames than this package')
    return metadata


def read_reply(message: dict[str, Any], request_bytes: int, reply_bytes: int) -> Reply:
    """The answer in contract types; raises what the server reports."""
    if 'code' in message:
        detail = str(message.get('detail', ''))[:300]
        error = InvalidInputError if message['code'] == Code.BAD_REQUEST.value else Geo4dError
        raise error(f'the server answers {message["code"]}: {detail}')
    budget = Budget(MAX_REPLY)
    video = decode(Video4D, message['video'], budget, 'video') if message.get('video') is not None else None
    track = decode(GripperTrack, message['track'], budget, 'track') if message.get('track') is not None else None
    timings = message.get('timings_ms')
    good = isinstance(timings, dict) and all(isinstance(k, str) and type(v) in (int, float) for k, v in timings.items())
    require(good, 'the server sent no timings')
    return Reply(video, track, dict(timings or {}), request_bytes, reply_bytes)
