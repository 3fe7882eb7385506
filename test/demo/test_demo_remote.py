"""`geo4d demo` with its model in a `geo4d serve` process: it succeeds, and a server that is killed ends it by name."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from geo4d_ros.bench.speed.serve import served
from geo4d_ros.resources import share_directory

pytest.importorskip('rclpy')

SHIPPED = share_directory() / 'models' / 'geo4d-sim-small'
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900),
              pytest.mark.skipif(not SHIPPED.is_dir(), reason='no shipped weights in this checkout')]


@pytest.fixture
def server():
    with served(str(SHIPPED), 'cpu') as started:
        yield started


def _demo(folder: Path, port: int, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, '-m', 'geo4d_ros.cli.main', 'demo', '--out', str(folder),
               '--generator', f'remote://127.0.0.1:{port}?timeout=60', *arguments]
    environment = {**os.environ, 'PYTHONPATH': str(share_directory())}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _summary(folder: Path) -> dict:
    return json.loads((folder / 'latest' / 'summary.json').read_text())


def test_remote_demo_succeeds(server, tmp_path):
    process = _demo(tmp_path, server[0])
    _, err = process.communicate(timeout=800)
    assert process.returncode == 0, err
    summary = _summary(tmp_path)
    assert summary['success'] and summary['fault'] is None and len(summary['model_sha256']) == 64


def test_a_killed_server_stops_the_loop_by_name(server, tmp_path):
    port, process = server
    demo = _demo(tmp_path, port, '--max-seconds', '300')
    lines = []

    def watch() -> None:
        for line in demo.stderr:
            lines.append(line)
            if 'cycle 1' in line and process.is_running():
                process.kill()

    watcher = threading.Thread(target=watch)
    watcher.start()
    demo.wait(600)
    watcher.join(30)
    summary = _summary(tmp_path)
    assert demo.returncode == 3 and summary['fault'] == 'PEER_DEAD' and not summary['success'], ''.join(lines)
    assert summary['cycles'] <= 2
