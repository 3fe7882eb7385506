"""docs/pictures/: screenshots of a demo's report, `python -m geo4d_ros.cli.pages.pictures [REPORT]`, by Chromium."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from geo4d_ros.cli.pages.browser import photographed
from geo4d_ros.errors import ConfigurationError, Geo4dError, require
from geo4d_ros.resources import resource

REPORT = Path('outputs/demo/latest/report.html')
WIDTH = 1000  # [px]


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


def main(argv: list[str]) -> int:
    """0, or 2 with one line that says what is missing."""
    try:
        for picture in write(Path(argv[0]) if argv else REPORT, resource('docs') / 'pictures'):
            print(picture)
    except Geo4dError as error:
        print(f'pictures: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
