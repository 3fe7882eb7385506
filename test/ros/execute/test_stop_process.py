"""The guardian's ear: what it takes for a dead, hanging or leaving executor."""

import os
import threading
from types import SimpleNamespace

import pytest

from geo4d_ros.ros.execute import stop_process


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    for end in (read, write):
        try:
            os.close(end)
        except OSError:
            continue


def watch(fd):
    ear = stop_process.Ear(fd)
    while True:
        why = ear.listen(0.05)
        if why is not None:
            return why


def test_a_closed_pipe_is_a_dead_executor(pipe):
    read, write = pipe
    os.write(write, b'm')
    os.close(write)
    assert watch(read) == 'the executor died'


def test_an_orderly_goodbye_stops_nothing(pipe):
    read, write = pipe
    os.write(write, b'miq')
    assert watch(read) == ''


def test_silence_during_a_motion_is_a_hanging_executor(pipe, monkeypatch):
    monkeypatch.setattr(stop_process, 'SILENCE', 0.1)
    read, write = pipe
    os.write(write, b'im')
    assert watch(read) == 'the executor hangs'


def test_silence_at_rest_is_none(pipe, monkeypatch):
    monkeypatch.setattr(stop_process, 'SILENCE', 0.05)
    read, write = pipe
    os.write(write, b'mi')
    timer = threading.Timer(0.5, lambda: os.write(write, b'q'))
    timer.start()
    assert watch(read) == ''
    timer.join()


class FakeFuture:
    def __init__(self):
        self.value, self.removed = None, False

    def done(self):
        return self.value is not None

    def exception(self):
        return None

    def result(self):
        return SimpleNamespace(return_code=self.value)


class FakeClient:
    """A cancel service that answers the requests whose numbers are in `answers`, with a return code."""

    def __init__(self, answers, ready_from=0.0):
        self.answers, self.ready_from, self.futures, self.now = answers, ready_from, [], 0.0

    def service_is_ready(self):
        return self.now >= self.ready_from

    def call_async(self, request):
        future = FakeFuture()
        future.value = self.answers.get(len(self.futures))
        self.futures.append(future)
        return future

    def remove_pending_request(self, future):
        future.removed = True


def play(clients, seconds):
    """Poll at 50 Hz; the steady time at which every controller had answered, None when one never did."""
    stop = stop_process.Stop(clients, None)
    for tick in range(int(seconds * 50)):
        for client in clients.values():
            client.now = tick / 50
        if stop.poll(tick / 50):
            return tick / 50, stop
    return None, stop


def test_a_lost_first_answer_is_asked_for_again_on_a_fresh_request():
    arm, gripper = FakeClient({2: 0}), FakeClient({0: 0})
    at, stop = play({'arm': arm, 'gripper': gripper}, 5.0)
    assert at == pytest.approx(2 * stop_process.AGAIN, abs=0.1)
    assert len(gripper.futures) == 1, 'who has answered is left alone'
    assert [f.removed for f in arm.futures] == [True, True, False], 'nothing is kept of the lost ones'
    assert stop.silent == []


def test_the_silent_controller_is_the_one_that_is_named():
    at, stop = play({'arm': FakeClient({}), 'gripper': FakeClient({0: 0})}, 2.0)
    assert at is None and stop.silent == ['arm']


def test_a_controller_that_refuses_to_stop_has_not_stopped():
    arm = FakeClient({0: 1, 1: 1, 2: 0})
    at, stop = play({'arm': arm}, 5.0)
    assert at is not None and len(arm.futures) == 3
    at, stop = play({'arm': FakeClient(dict.fromkeys(range(100), 1))}, 2.0)
    assert at is None and stop.silent == ['arm']


def test_a_controller_that_appears_late_is_stopped_too():
    at, _ = play({'arm': FakeClient({0: 0}, ready_from=1.0)}, 3.0)
    assert at == pytest.approx(1.0, abs=0.1)
