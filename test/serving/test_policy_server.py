"""The policy server over real sockets: same video, clients, BUSY, limits, tokens, TLS, and it outlives misuse."""

import asyncio
import dataclasses
import socket
import subprocess
import threading
import time

import msgpack
import numpy as np
import pytest
from fakes.still_generator import StillModel, StillTracker
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from geo4d_ros.bench.speed.bad_clients import bad_clients, cut_off, misuse
from geo4d_ros.errors import (
    CheckpointError,
    ConfigurationError,
    Geo4dError,
    InvalidInputError,
    PeerLostError,
    PredictionTimeoutError,
)
from geo4d_ros.generation.loading import open_generator
from geo4d_ros.generation.protocol import VideoGenerator
from geo4d_ros.generation.remote.address import Address
from geo4d_ros.generation.remote.client import RemoteGenerator
from geo4d_ros.serving.access import check_exposure, server_context
from geo4d_ros.serving.server import Limits, PolicyServer, ServerThread
from geo4d_ros.types import Observation

OBSERVATION = Observation.example()
SECONDS = 30.0  # patience: the machine that runs tests is busy


def server(model=None, sha='a' * 64, **options):
    model = model or StillModel()
    return PolicyServer(model, sha, size=model.size, **options)


def client(port, **options):
    return RemoteGenerator(Address('127.0.0.1', port, **{'timeout': SECONDS, **options}))


@pytest.fixture
def still():
    model = StillModel()
    with ServerThread(server(model, tracker=StillTracker())) as port:
        yield model, port
        model.gate.set()


def test_a_remote_generator_is_a_generator_with_the_same_video(still):
    model, port = still
    remote = open_generator(f'remote://127.0.0.1:{port}?timeout=30')
    assert isinstance(remote, VideoGenerator)
    assert (remote.frames, remote.dt) == (model.frames, model.dt) and remote.name == f'still at 127.0.0.1:{port}'
    there, here = remote.predict(OBSERVATION, 3), model.predict(OBSERVATION, 3)
    for field in ('rgb', 'points', 'valid', 'stamps', 'K', 'T_ref_view'):
        assert np.array_equal(getattr(there, field), getattr(here, field)), field
    assert {'paint', 'decode', 'wait', 'generate', 'encode', 'total', 'network', 'remote'} <= set(there.timings)
    assert there.timings['remote'] >= there.timings['total'] >= there.timings['generate'] >= 0
    remote.close()


def test_the_handshake_says_what_is_served(still):
    _, port = still
    with connect(f'ws://127.0.0.1:{port}') as raw:
        meta = msgpack.unpackb(raw.recv())
    assert meta == {'protocol': 1, 'model': 'still', 'model_sha256': 'a' * 64, 'frames': 3, 'dt': 0.5, 'views': 2,
                    'height': 24, 'width': 32, 'units': 'm', 'frame': 'reference_optical', 'tracker': 'fused',
                    'max_request_bytes': 16 << 20}


def test_tracks_are_served_too(still):
    _, port = still
    reply = client(port).ask(OBSERVATION, video=False, track=True)
    assert reply.video is None and len(reply.track) == 4 and reply.track.details == {'readout': 'fused'}
    assert 'track' in reply.timings_ms and reply.request_bytes > 1000


def test_a_server_without_tracker_says_so():
    with ServerThread(server()) as port, pytest.raises(InvalidInputError, match='no tracker'):
        client(port).ask(OBSERVATION, track=True)


def test_the_view_is_made_small_before_it_travels(still):
    _, port = still
    remote = client(port, compression='none')
    large = dataclasses.replace(OBSERVATION, views=tuple(type(v).example(480, 640) for v in OBSERVATION.views))
    assert remote.ask(large).request_bytes < 2 * 24 * 32 * 7 + 3000
    assert remote.predict(large).rgb.shape == (2, 4, 24, 32, 3)


def test_many_clients_are_answered_and_each_gets_its_own():
    with ServerThread(server(limits=Limits(waiting=64))) as port:
        answers = {}

        def ask(i):
            observation = dataclasses.replace(OBSERVATION, views=tuple(
                dataclasses.replace(v, stamp=1000 + i) for v in OBSERVATION.views))
            answers[i] = [client(port).predict(observation).stamps[0]]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert answers == {i: [1000 + i] for i in range(16)}


def test_busy_is_answered_at_once_and_waited_out(still):
    model, port = still
    model.gate.clear()
    threads = [threading.Thread(target=client(port).predict, args=(OBSERVATION,), daemon=True) for _ in range(5)]
    for thread in threads:
        thread.start()
    raw = _await_busy(port)
    assert raw['code'] == 'BUSY' and raw['id'] == 7
    with pytest.raises(PredictionTimeoutError, match='busy'):
        client(port, timeout=5.0).predict(OBSERVATION)
    model.gate.set()
    for thread in threads:
        thread.join(SECONDS)
    assert client(port).predict(OBSERVATION).frames == 4 and model.asked == 6


def _await_busy(port):
    """Asks with nonsense until the server has no time even for that."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with connect(f'ws://127.0.0.1:{port}') as raw:
            raw.recv()
            raw.send(msgpack.packb({'id': 7}))
            answer = msgpack.unpackb(raw.recv(SECONDS))
        if answer['code'] == 'BUSY':
            return answer
    raise AssertionError('the server never was busy')


def test_a_slow_model_is_a_timeout_and_the_late_answer_is_not_mistaken(still):
    model, port = still
    remote = client(port)
    assert remote.metadata.frames == 3
    model.gate.clear()
    object.__setattr__(remote.address, 'timeout', 0.3)
    with pytest.raises(PredictionTimeoutError, match='did not answer'):
        remote.predict(OBSERVATION)
    model.gate.set()
    object.__setattr__(remote.address, 'timeout', SECONDS)
    later = dataclasses.replace(OBSERVATION, views=tuple(dataclasses.replace(v, stamp=77) for v in OBSERVATION.views))
    assert remote.predict(later).stamps[0] == 77


def test_what_the_model_raises_is_reported_without_its_inside(still):
    model, port = still
    model.error = RuntimeError('secret path')
    with pytest.raises(Geo4dError, match='FAILED: RuntimeError'):
        client(port).predict(OBSERVATION)
    model.error = InvalidInputError('still needs two views')
    with pytest.raises(InvalidInputError, match='still needs two views'):
        client(port).predict(OBSERVATION)
    model.error = None
    assert client(port).predict(OBSERVATION).frames == 4


def test_no_server_and_a_lost_server_and_one_that_returns():
    with pytest.raises(PeerLostError, match='no server'):
        client(_free_port()).predict(OBSERVATION)
    with ServerThread(server()) as port:
        remote = client(port, timeout=5.0)
        remote.predict(OBSERVATION)
    with pytest.raises(PeerLostError, match='serve'):
        remote.predict(OBSERVATION)
    with ServerThread(server(), port=port):
        assert remote.predict(OBSERVATION).frames == 4
    with ServerThread(server(sha='b' * 64), port=port), pytest.raises(CheckpointError, match='other weights'):
        remote.predict(OBSERVATION)


def test_a_server_that_says_nothing_is_given_up():
    with socket.create_server(('127.0.0.1', 0)) as silent, pytest.raises(PeerLostError):
        client(silent.getsockname()[1], timeout=0.5).predict(OBSERVATION)


def test_token(monkeypatch):
    with ServerThread(server(token='right')) as port:
        for wrong in (None, 'wrong', 'right!'):
            monkeypatch.setenv('GEO4D_TOKEN', wrong) if wrong else monkeypatch.delenv('GEO4D_TOKEN', raising=False)
            with pytest.raises(ConfigurationError, match='GEO4D_TOKEN'):
                client(port).predict(OBSERVATION)
        monkeypatch.setenv('GEO4D_TOKEN', 'right')
        assert client(port).predict(OBSERVATION).frames == 4


def test_tls(tmp_path):
    cert, key = tmp_path / 'cert.pem', tmp_path / 'key.pem'
    made = subprocess.run(['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=x',
                           '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', cert],
                          capture_output=True, check=False)
    if made.returncode:
        pytest.skip('no openssl command to make a certificate')
    with ServerThread(server(tls=server_context(cert, key))) as port:
        assert client(port, tls=True, ca=cert).predict(OBSERVATION).frames == 4
        with pytest.raises(PeerLostError, match=r'certificate|CERTIFICATE'):
            client(port, tls=True).predict(OBSERVATION)
        with pytest.raises(PeerLostError):
            client(port, timeout=3.0).predict(OBSERVATION)
    with pytest.raises(ConfigurationError, match='cannot use'):
        server_context(key, cert)
    with pytest.raises(ConfigurationError, match='together'):
        server_context(cert, None)


@pytest.mark.parametrize('host, token, tls, insecure, good', [
    ('127.0.0.1', None, False, False, True), ('localhost', None, False, False, True),
    ('::1', None, False, False, True),
    ('0.0.0.0', None, False, False, False), ('0.0.0.0', 't', False, False, False),
    ('0.0.0.0', None, True, False, False),
    ('0.0.0.0', 't', True, False, True), ('0.0.0.0', None, False, True, True),
    ('gpu.local', None, False, False, False)])
def test_beyond_this_machine_only_with_token_and_tls(host, token, tls, insecure, good):
    if good:
        check_exposure(host, token, tls, insecure)
    else:
        with pytest.raises(ConfigurationError, match='--insecure'):
            check_exposure(host, token, tls, insecure)


def test_too_large_a_request_is_refused_on_both_sides():
    with ServerThread(server(limits=Limits(request_bytes=20_000))) as port:
        with pytest.raises(InvalidInputError, match='max-request-mib'):
            RemoteGenerator(Address('127.0.0.1', port, timeout=SECONDS)).predict(Observation.example(views=12))
        with connect(f'ws://127.0.0.1:{port}') as raw:
            raw.recv()
            with pytest.raises(ConnectionClosed):
                raw.send(b'x' * 30_000)
                raw.recv(SECONDS)
        assert client(port).predict(OBSERVATION).frames == 4


def test_clients_beyond_the_limit_are_turned_away_and_health_is_answered():
    with ServerThread(server(limits=Limits(clients=2))) as port:
        first, second = client(port), client(port)
        first.predict(OBSERVATION), second.predict(OBSERVATION)
        with pytest.raises(PeerLostError, match='503'):
            client(port).predict(OBSERVATION)
        assert _http(port, '/healthz').startswith(b'HTTP/1.1 200')
        first.close()
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                assert client(port).predict(OBSERVATION).frames == 4
                break
            except PeerLostError:
                assert time.monotonic() < deadline


def test_a_client_that_reads_nothing_holds_up_nobody():
    large = StillModel(frames=40, size=(96, 128))
    with ServerThread(server(large, limits=Limits(send_seconds=0.5, waiting=8))) as port:
        data = _request_of(port)
        with socket.create_connection(('127.0.0.1', port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            _shake_hands(slow)
            for _ in range(8):
                slow.sendall(_frame(data))
            started = time.monotonic()
            assert client(port).predict(OBSERVATION).frames == 41
            assert time.monotonic() - started < SECONDS


def test_half_open_connections_go_away_by_themselves():
    limits = Limits(clients=4, ping_seconds=0.3)
    with ServerThread(server(limits=limits)) as port:
        sockets = [socket.create_connection(('127.0.0.1', port)) for _ in range(3)]  # never speak
        dead = [socket.create_connection(('127.0.0.1', port)) for _ in range(3)]  # never answer a ping
        for one in dead:
            _shake_hands(one)
        deadline = time.monotonic() + SECONDS
        while True:  # the three take places until their pings go unanswered
            try:
                others = [client(port) for _ in range(4)]
                assert [c.predict(OBSERVATION).frames for c in others] == [4] * 4
                break
            except PeerLostError:
                assert time.monotonic() < deadline
            finally:
                for other in others:
                    other.close()
        for one in sockets + dead:
            one.close()


def test_bad_clients_do_not_hold_up_the_others_and_are_cut_off():
    with ServerThread(server(limits=Limits(waiting=8, ping_seconds=0.3))) as port:
        with bad_clients(port, OBSERVATION, 2) as bad:
            assert client(port).predict(OBSERVATION).frames == 4
            deadline = time.monotonic() + SECONDS
            gone = 0
            while gone < 4 and time.monotonic() < deadline:  # pings of both kinds go unanswered
                time.sleep(0.1)
                gone = cut_off(bad['half_open']) + cut_off(bad['unread'])
            assert gone == 4
        assert client(port).predict(OBSERVATION).frames == 4


def test_malformed_requests_are_answered_and_the_server_lives(still):
    model, port = still
    outcome = misuse(port, OBSERVATION, 300, 0)['malformed_outcome']
    assert outcome['unanswered'] == outcome['accepted'] == 0 and outcome['refused'] > 200 and model.asked == 0
    assert client(port).predict(OBSERVATION).frames == 4


@pytest.mark.slow
def test_ten_thousand_malformed_requests(still):
    _, port = still
    outcome = misuse(port, OBSERVATION, 10_000, 1)['malformed_outcome']
    assert outcome['unanswered'] == outcome['accepted'] == 0
    assert client(port).predict(OBSERVATION).frames == 4


def _free_port():
    with socket.create_server(('127.0.0.1', 0)) as s:
        return s.getsockname()[1]


def _http(port, path):
    with socket.create_connection(('127.0.0.1', port)) as s:
        s.sendall(f'GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
                  'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n'.encode())
        return s.recv(4096)


def _shake_hands(s):
    s.sendall(b'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
              b'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n')
    assert s.recv(12) == b'HTTP/1.1 101'


def _frame(data):
    """A masked binary frame (mask 0)."""
    return bytes([0x82, 0xFF]) + len(data).to_bytes(8, 'big') + bytes(4) + data


def _request_of(port):
    remote = client(port)
    assert remote.metadata.frames
    return remote._request(OBSERVATION, 0, True, False)


def test_address_in_use_is_one_line():
    with ServerThread(server()) as port, pytest.raises(ConfigurationError, match='cannot listen'):
        asyncio.run(server().start('127.0.0.1', port))
