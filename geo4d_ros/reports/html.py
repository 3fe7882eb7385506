"""A report as one HTML file: tables, pictures, curves, videos and points inside it, no network, a script for the points
only."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.reports.cloud import SCRIPT, cloud_figure
from geo4d_ros.types import Video4D

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #1c2430; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { border-bottom: 1px solid #d5dae2; padding: .25rem .7rem; text-align: right;
         font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left }
figure { margin: 1rem 0 } figcaption { color: #5b6676; font-size: .9rem }
img, video, svg, canvas { max-width: 100%; image-rendering: pixelated } svg { image-rendering: auto }
.cloud canvas { background: #eef1f5; cursor: grab; touch-action: none } .cloud input { width: 24rem; max-width: 80% }
.good { color: #17663a; font-weight: 600 } .bad { color: #a32020; font-weight: 600 }
"""
_COLOURS = ('#1f5fa8', '#c2571a', '#2c7d4f', '#8a3b8f', '#7a6a12', '#555f6e', '#b02a4c')


class HtmlReport:
    """Collects sections in order and writes them as one self-contained page."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []
        self._script = ''

    def heading(self, text: str) -> None:
        """A section heading."""
        self._parts.append(f'<h2>{escape(text)}</h2>')

    def text(self, text: str, css_class: str = '') -> None:
        """A paragraph; css_class 'good' or 'bad' colours it."""
        self._parts.append(f'<p class="{escape(css_class)}">{escape(text)}</p>')

    def table(self, header: list[str], rows: list[list[object]]) -> None:
        """A table; None cells show a dash."""
        def cells(tag: str, values: list[object]) -> str:
            return ''.join(f'<{tag}>{escape(_cell(v))}</{tag}>' for v in values)

        body = ''.join(f'<tr>{cells("td", row)}</tr>' for row in rows)
        head = f'<tr>{cells("th", list(header))}</tr>'
        self._parts.append(f'<table><thead>{head}</thead><tbody>{body}</tbody></table>')

    def image(self, image: np.ndarray, caption: str) -> None:
        """An (H, W, 3) uint8 picture."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, 'PNG', optimize=True)
        data = base64.b64encode(buffer.getvalue()).decode()
        self._figure(f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">', caption)

    def video(self, path: Path, caption: str) -> None:
        """An mp4 file, embedded."""
        data = base64.b64encode(path.read_bytes()).decode()
        source = f'data:video/mp4;base64,{data}'
        self._figure(f'<video controls muted loop preload="auto" src="{source}"></video>', caption)

    def curves(self, caption: str, x: list[float], series: dict[str, list[float]], x_label: str,
               y_label: str) -> None:
        """A line chart of named series over common x; NaN and None leave gaps."""
        self._figure(line_chart(x, series, x_label, y_label), caption)

    def cloud(self, video: Video4D, caption: str) -> None:
        """A predicted video as points, to be turned by mouse or arrow keys."""
        self._parts.append(cloud_figure(video, caption))
        self._script = f'<script>{SCRIPT}</script>'

    def _figure(self, inner: str, caption: str) -> None:
        self._parts.append(f'<figure>{inner}<figcaption>{escape(caption)}</figcaption></figure>')

    def write(self, path: Path) -> None:
        """Write the page; ConfigurationError where that fails."""
        title = escape(self._title)
        page = (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
                f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><h1>{title}</h1>'
                + '\n'.join(self._parts) + f'{self._script}</body></html>\n')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page)
        except OSError as error:
            raise ConfigurationError(f'cannot write {path}: {error}; choose a writable place') from error


def _cell(value: object) -> str:
    if value is None:
        return '–'
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def line_chart(x: list[float], series: dict[str, list[float]], x_label: str, y_label: str) -> str:
    """An SVG line chart, y from 0 to just above the largest finite value."""
    width, height, left, bottom = 640, 300, 60, 45
    finite = [v for values in series.values() for v in values if v is not None and np.isfinite(v)]
    top = max(finite, default=1.0) * 1.08 or 1.0
    x_low, x_high = min(x), max(x) if max(x) > min(x) else min(x) + 1

    def at(px: float, py: float) -> tuple[float, float]:
        return (left + (px - x_low) / (x_high - x_low) * (width - left - 130),
                height - bottom - py / top * (height - bottom - 15))

    parts = [f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" font-size="12" '
             'font-family="sans-serif">']
    for tick in np.linspace(0, top, 5):
        x0, y0 = at(x_low, tick)
        x1, _ = at(x_high, tick)
        parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y0:.1f}" stroke="#dde2e9"/>'
                     f'<text x="{x0 - 6:.1f}" y="{y0 + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    for value in x if len(x) <= 12 else np.linspace(x_low, x_high, 6):
        px, py = at(value, 0)
        parts.append(f'<text x="{px:.1f}" y="{py + 16:.1f}" text-anchor="middle">{value:.3g}</text>')
    for i, (name, values) in enumerate(series.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        for run in _runs(x, values):
            points = ' '.join('{:.1f},{:.1f}'.format(*at(*p)) for p in run)
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{width - 120}" y="{25 + 17 * i}" fill="{colour}">{escape(name)}</text>')
    middle = (left + width - 130) / 2
    parts.append(f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{escape(x_label)}</text>'
                 f'<text x="14" y="{height / 2}" text-anchor="middle" '
                 f'transform="rotate(-90 14 {height / 2})">{escape(y_label)}</text></svg>')
    return ''.join(parts)


def _runs(x: list[float], values: list[float]) -> list[list[tuple[float, float]]]:
    """Unbroken stretches of finite points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for px, py in zip(x, values, strict=True):
        if py is None or not np.isfinite(py):
            runs.append([])
        else:
            runs[-1].append((px, py))
    return [run for run in runs if run]
