"""A Chromium of this machine, where there is one: what it makes of a page, and a picture of it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from geo4d_ros.errors import BackendUnavailableError, require

NAMES = 'chromium-headless-shell', 'chromium', 'chromium-browser', 'google-chrome'
SECONDS = 300


def browser() -> str | None:
    """Its path; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def opened(page: Path, *options: str) -> tuple[str, list[str]]:
    """(the document after its scripts have run, lines on its console) of an HTML file, offline.

    Raises BackendUnavailableError without a browser.
    """
    program = browser()
    require(program is not None, 'no Chromium here; apt-get install chromium-headless-shell', BackendUnavailableError)
    with tempfile.TemporaryDirectory() as profile:
        command = [str(program), '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr', '--v=0',
                   '--host-resolver-rules=MAP * ~NOTFOUND', f'--user-data-dir={profile}', '--virtual-time-budget=15000',
                   *(options or ('--dump-dom',)), page.resolve().as_uri()]
        result = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    return result.stdout, [line for line in result.stderr.splitlines() if 'CONSOLE' in line]


def photographed(page: Path, picture: Path, width: int, height: int) -> None:
    """Write the top of a page as PNG of this size [px]. Raises BackendUnavailableError where nothing comes of it."""
    opened(page, f'--screenshot={picture.resolve()}', f'--window-size={width},{height}', '--hide-scrollbars')
    require(picture.is_file(), f'the browser made no picture of {page}', BackendUnavailableError)
