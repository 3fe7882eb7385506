"""The picture of a model card's training record: `python -m geo4d_ros.reports.curves MODEL`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from geo4d_ros.reports.html import line_chart

TERMS = ('state', 'rgb', 'depth', 'motion')


def curves(record: dict) -> str:
    """An SVG of the loss terms over the minutes of all runs that kept a `curve`, one run after the other."""
    minutes: list[float] = []
    series: dict[str, list[float]] = {name: [] for name in TERMS}
    for run in record['runs']:
        if 'curve' not in run:
            continue
        start = minutes[-1] if minutes else 0.0
        minutes += [start, *(start + m for m in run['curve']['minutes'])]
        for name in TERMS:
            series[name] += [float('nan'), *run['curve'][name]]  # a gap between two runs
    chart = line_chart(minutes, series, 'minutes of training (the last two runs)', 'running mean of the loss term')
    return chart.replace('<svg ', '<svg xmlns="http://www.w3.org/2000/svg" ', 1)  # a file of its own needs its name


def main(argv: list[str]) -> int:
    """Write MODEL/curves.svg from MODEL/training.json."""
    folder = Path(argv[0] if argv else 'models/geo4d-sim-small')
    (folder / 'curves.svg').write_text(curves(json.loads((folder / 'training.json').read_text())) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
