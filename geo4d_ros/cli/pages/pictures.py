"""docs/pictures/: `python -m geo4d_ros.cli.pages.pictures [REPORT]` photographs a demo's report by Chromium, with
a .rrd file in its place the viewer by Rerun itself, which needs no screen but a Vulkan driver (Mesa's will do)."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from geo4d_ros.cli.pages.browser import photographed
from geo4d_ros.errors import BackendUnavailableError, ConfigurationError, Geo4dError, require
from geo4d_ros.resources import resource

REPORT = Path('outputs/demo/latest/report.html')
WIDTH = 1000  # [px]
VIEWER_SIZE, VIEWER_SECONDS = '1200x700', 150.0  # a software renderer on a busy machine needs them


def shortened(page: str, kept: str) -> str:
    """A report with only the figures whose HTML matches `kept`, its style and its script."""
    figures = [f for f in re.findall(r'<figure.*?</figure>', page, re.DOTALL) if re.match(kept, f)]
    require(bool(figures), f'the report has no figure {kept!r}; make it anew with `geo4d demo`', ConfigurationError)
    head, script = page[:page.index('<body>') + len('<body>')], re.search(r'<script>.*?</script>', page, re.DOTALL)
    return f'{head}{figures[0]}{script[0] if script else ""}</body></html>'


def write(report: Path, folder: Path) -> list[Path]:
    """report.png, its top, and report_points.png, a prediction as points. Raises Geo4dError."""
    require(report.is_file(), f'{report} does not exist; run `geo4d demo`', ConfigurationError)
    folder.mkdir(parents=True, exist_ok=True)
    photographed(report, folder / 'report.png', WIDTH, 900)
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / 'points.html'
        page.write_text(shortened(report.read_text(), '<figure class="cloud"'))
        photographed(page, folder / 'report_points.png', 560, 480)
    return [folder / 'report.png', folder / 'report_points.png']


def write_viewer(recording: Path, folder: Path) -> list[Path]:
    """viewer.png of a recording that `geo4d view --out` or `--rrd` wrote. Raises Geo4dError."""
    from geo4d_ros.evaluation.rerun_scene import library

    require(recording.is_file(), f'{recording} does not exist; write it with `geo4d view ... --out`',
            ConfigurationError)
    library()
    from rerun.experimental import ViewerClient

    program = Path(sys.executable).parent / 'rerun'  # of this environment, which need not be activated
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    command = [str(program) if program.is_file() else 'rerun', '--headless', '--renderer', 'vulkan',
               '--hide-welcome-screen', '--window-size', VIEWER_SIZE, '--port', str(port), str(recording)]
    environment = {'XDG_RUNTIME_DIR': tempfile.gettempdir(), **os.environ, 'RUST_LOG': 'off'}
    # A session of its own: the command is a wrapper, whose end alone would leave the viewer behind.
    viewer = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True)
    try:
        picture = _settled(f'rerun+http://127.0.0.1:{port}/proxy', ViewerClient)
    finally:
        os.killpg(viewer.pid, signal.SIGKILL)
        viewer.wait()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'viewer.png').write_bytes(picture)
    return [folder / 'viewer.png']


def _settled(url: str, client: Any) -> bytes:
    """What the viewer shows (PNG) once nothing changes any more; a drawing that took too long is asked for again."""
    end, picture, cause = time.monotonic() + VIEWER_SECONDS, b'', 'nothing was drawn'
    while time.monotonic() < end:
        time.sleep(5.0)
        try:
            before, picture = picture, client.connect(url).take_screenshot()
        except (RuntimeError, OSError) as error:
            cause = str(error).splitlines()[0]
            continue
        if picture == before:
            break
    require(bool(picture), f'the viewer cannot draw here ({cause}); it needs a Vulkan driver: apt-get install '
            'mesa-vulkan-drivers', BackendUnavailableError)
    return picture


def main(argv: list[str]) -> int:
    """0, or 2 with one line that says what is missing."""
    try:
        source = Path(argv[0]) if argv else REPORT
        for picture in (write_viewer if source.suffix == '.rrd' else write)(source, resource('docs') / 'pictures'):
            print(picture)
    except Geo4dError as error:
        print(f'pictures: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
