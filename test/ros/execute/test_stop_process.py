"""The guardian's ear: what it takes for a dead, hanging or leaving executor."""

import os
import threading

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


def test_a_closed_pipe_is_a_dead_executor(pipe):
    read, write = pipe
    os.write(write, b'm')
    os.close(write)
    assert stop_process.watch(read) == 'the executor died'


def test_an_orderly_goodbye_stops_nothing(pipe):
    read, write = pipe
    os.write(write, b'miq')
    assert stop_process.watch(read) == ''


def test_silence_during_a_motion_is_a_hanging_executor(pipe, monkeypatch):
    monkeypatch.setattr(stop_process, 'SILENCE', 0.1)
    read, write = pipe
    os.write(write, b'im')
    assert stop_process.watch(read) == 'the executor hangs'


def test_silence_at_rest_is_none(pipe, monkeypatch):
    monkeypatch.setattr(stop_process, 'SILENCE', 0.05)
    read, write = pipe
    os.write(write, b'mi')
    timer = threading.Timer(0.5, lambda: os.write(write, b'q'))
    timer.start()
    assert stop_process.watch(read) == ''
    timer.join()
