"""The page of a data set: what is in it, what looks wrong, and films of some episodes."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from geo4d_ros.data.check import DataReport, EpisodeCheck
from geo4d_ros.data.episodes import RATE_HZ, Episode, decode_depth
from geo4d_ros.data.trainings import REMEDIES
from geo4d_ros.evaluation.movies import depth_colours, side_by_side, stack_rows, write_mp4
from geo4d_ros.reports.html import HtmlReport

FILMS = 6


def write_data_page(path: Path, directory: Path, report: DataReport, films: int = FILMS) -> None:
    """Write one HTML file with at most `films` films, spread evenly over the episodes."""
    page = HtmlReport(f'Data in {directory.name}')
    problems = report.problems()
    page.text(f'{len(report.episodes)} episodes, {len(problems)} problems.', 'bad' if problems else 'good')
    for problem in problems:
        page.text(problem, 'bad')
    page.heading('What is in it')
    page.table(['task', 'episodes', 'moments', 'minutes'], _tasks(report.episodes))
    page.table(['', ''], _figures(report.episodes))
    page.heading('What can be trained')
    page.table(['training', 'lacking'], [[name, ', '.join(lacking) or None]
                                         for name, lacking in report.trainable.items()])
    if report.missing:
        page.table(['missing', 'mend'], [[name, REMEDIES[name]] for name in report.missing])
    page.heading('Films')
    chosen = np.unique(np.linspace(0, len(report.episodes) - 1, min(films, len(report.episodes))).astype(int))
    with tempfile.TemporaryDirectory() as folder:
        for i in chosen:
            film = Path(folder) / f'{i}.mp4'
            write_mp4(film, episode_film(Episode.open(report.episodes[i].path)), RATE_HZ)
            page.video(film, f'{report.episodes[i].path.name}: colour above, depth below')
    page.write(path)


def episode_film(episode: Episode) -> list[np.ndarray]:
    """One picture per moment: all cameras' colour, and below it their depth where there is any."""
    rgb = episode.read('rgb')
    depth = None if 'depth' in episode.missing else episode.read('depth')
    scale = max(1, round(192 / rgb.shape[2]))
    frames = []
    for t in range(episode.frames):
        rows = [side_by_side(list(rgb[:, t]), [f'camera {c + 1}' for c in range(len(rgb))], scale)]
        if depth is not None:
            rows.append(side_by_side([depth_colours(decode_depth(d)) for d in depth[:, t]], None, scale))
        frames.append(stack_rows(rows))
    return frames


def _tasks(episodes: list[EpisodeCheck]) -> list[list[object]]:
    counts = Counter(e.task for e in episodes)
    moments: Counter[str] = Counter()
    for e in episodes:
        moments[e.task] += e.frames
    return [[task, n, moments[task], moments[task] / RATE_HZ / 60] for task, n in sorted(counts.items())]


def _figures(episodes: list[EpisodeCheck]) -> list[list[object]]:
    def worst(values: list[float], pick: object) -> float | None:
        return pick(values) if values else None  # type: ignore[operator]

    return [
        ['median step [s]', worst([e.median_step_s for e in episodes], np.median)],
        ['largest step [s]', worst([e.largest_step_s for e in episodes], max)],
        ['largest skew of cameras [ms]', worst([e.largest_skew_ms for e in episodes], max)],
        ['least share of valid depth', worst([v for e in episodes for v in e.valid_depth], min)],
        ['least agreement of two views',
         worst([e.view_agreement for e in episodes if e.view_agreement is not None], min)],
        ['gripper off its labels, of the width',
         worst([e.gripper_off for e in episodes if e.gripper_off is not None], max)],
    ]
