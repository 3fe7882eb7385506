"""`geo4d demo` as a user runs it: report, latest, exit code; nothing left behind; the page in a real browser."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geo4d_ros.cli.pages.browser import browser, opened
from geo4d_ros.resources import share_directory

pytest.importorskip('rclpy')

SHIPPED = share_directory() / 'models' / 'geo4d-sim-small'
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900),
              pytest.mark.skipif(not SHIPPED.is_dir(), reason='no shipped weights in this checkout')]


def _demo(folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, '-m', 'geo4d_ros.cli.main', 'demo', '--out', str(folder), *arguments]
    environment = {**os.environ, 'PYTHONPATH': str(share_directory())}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def _alive(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().split()[2] != 'Z'
    except OSError:
        return False


def _node_pids(folder: Path) -> list[int]:
    """Processes that were started with this demo's folder or in its session, by their command line."""
    found = []
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / 'environ').read_bytes().decode(errors='replace')
                command = (entry / 'cmdline').read_bytes().decode(errors='replace')
            except OSError:
                continue
            if 'geo4d_ros.nodes' in command and f'GEO4D_DEMO_TEST={folder}' in environment:
                found.append(int(entry.name))
    return found


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp('demo')
    process = _demo(folder, '--max-cycles', '2')
    out, err = process.communicate(timeout=600)
    return folder, process.returncode, out, err


def test_demo_ends_by_itself_and_tells_the_outcome(finished):
    folder, code, out, err = finished
    summary = json.loads((folder / 'latest' / 'summary.json').read_text())
    assert code == (3 if summary['fault'] else 0), err
    assert {'task', 'seed', 'success', 'cycles', 'fault', 'stages_ms', 'model_sha256', 'revision',
            'processes'} <= set(summary)
    assert summary['seed'] >= 500_000 and len(summary['processes']) >= 3
    assert ('succeeded' if summary['success'] else 'did not succeed') in out
    assert not any(_alive(pid) for pid in summary['processes'].values())
    assert (folder / 'latest' / 'episode.mp4').stat().st_size > 1000


@pytest.mark.skipif(browser() is None, reason='no Chromium on this machine')
def test_report_opens_in_a_browser_without_errors(finished, tmp_path):
    folder = finished[0]
    page = (folder / 'latest' / 'report.html').read_text()
    # The page tells the browser's own view of itself: a probe is added to a copy.
    probe = ('<script>window.onload=()=>setTimeout(()=>{const i=[...document.images],v=[...document.querySelectorAll'
             '("video")];document.title="LOADED images="+i.filter(x=>x.naturalWidth>0).length+"/"+i.length+" videos="'
             '+v.filter(x=>x.readyState>=2&&!x.error).length+"/"+v.length;},3000)</script></body>')
    copy = tmp_path / 'probe.html'
    copy.write_text(page.replace('</body>', probe))
    document, console = opened(copy)
    counts = re.search(r'LOADED images=(\d+)/(\d+) videos=(\d+)/(\d+)', document)
    assert counts, console
    images, all_images, videos, all_videos = map(int, counts.groups())
    assert images == all_images >= 1 and videos == all_videos == 1
    assert console == [] and int(re.search(r'data-drawn="(\d+)"', document)[1]) > 1000


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_process_behind(number, tmp_path, monkeypatch):
    monkeypatch.setenv('GEO4D_DEMO_TEST', str(tmp_path))
    process = _demo(tmp_path)
    end = time.monotonic() + 120
    while len(_node_pids(tmp_path)) < 3 and time.monotonic() < end and process.poll() is None:
        time.sleep(0.2)
    assert len(_node_pids(tmp_path)) >= 3
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    end = time.monotonic() + 20
    while _node_pids(tmp_path) and time.monotonic() < end:
        time.sleep(0.2)
    assert _node_pids(tmp_path) == []
