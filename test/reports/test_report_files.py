"""Movies and HTML reports: what is written can be read back, and stands alone."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.evaluation.movies import depth_colours, label_image, side_by_side, stack_rows, write_mp4
from geo4d_ros.reports.curves import TERMS, curves
from geo4d_ros.reports.html import HtmlReport, line_chart


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def _frames(n=6, height=33, width=49):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for _ in range(n)]


def test_movie_of_odd_size_has_all_frames(tmp_path):
    imageio_ffmpeg = pytest.importorskip('imageio_ffmpeg')
    write_mp4(tmp_path / 'a.mp4', _frames(), fps=5)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / 'a.mp4'))
    assert count == 6
    assert seconds == pytest.approx(1.2, abs=0.05)
    assert next(imageio_ffmpeg.read_frames(str(tmp_path / 'a.mp4')))['size'] == (50, 34)


def test_movie_refuses_mixed_sizes_and_nothing(tmp_path):
    with pytest.raises(InvalidInputError):
        write_mp4(tmp_path / 'a.mp4', [])
    with pytest.raises(InvalidInputError):
        write_mp4(tmp_path / 'a.mp4', [_frames()[0], np.zeros((10, 10, 3), np.uint8)])


def test_report_is_self_contained_and_escapes(tmp_path):
    report = HtmlReport('A <title>')
    report.text('x < y')
    report.table(['name', 'value'], [['a&b', 1.23456], ['none', None]])
    report.image(_frames(1)[0], 'picture')
    write_mp4(tmp_path / 'clip.mp4', _frames())
    report.video(tmp_path / 'clip.mp4', 'clip')
    report.curves('curve', [1, 2, 3], {'a': [1, float('nan'), 2]}, 'step', 'cm')
    report.write(tmp_path / 'deep' / 'report.html')
    page = (tmp_path / 'deep' / 'report.html').read_text()
    tags = _Tags()
    tags.feed(page)
    links = [v for _, attrs in tags.seen for k, v in attrs.items() if k in ('src', 'href')]
    assert len(links) == 3
    assert all(link.startswith('data:') for link in links)
    assert not any(tag == 'script' for tag, _ in tags.seen)
    assert 'a&amp;b' in page and 'x &lt; y' in page and 'A &lt;title&gt;' in page


def test_report_names_an_unwritable_place(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigurationError, match='cannot write'):
        HtmlReport('t').write(tmp_path / 'file' / 'report.html')


def test_chart_breaks_lines_at_gaps():
    svg = line_chart([0, 1, 2, 3], {'a': [1.0, 2.0, None, 3.0]}, 'x', 'y')
    assert len(re.findall('<polyline', svg)) == 2
    assert 'nan' not in line_chart([0], {'a': [float('nan')]}, 'x', 'y')


def test_picture_helpers_keep_sizes():
    a, b = _frames(2)
    row = side_by_side([a, b], ['left', 'right'], scale=2)
    assert row.shape == (66, 196, 3)
    assert stack_rows([row, row[:, :100]]).shape == (132, 196, 3)
    assert label_image(a, 'x').shape == a.shape
    depth = np.array([[0.0, 0.5], [1.0, 9.0]], np.float32)
    colours = depth_colours(depth)
    assert colours.dtype == np.uint8 and (colours[0, 0] == 0).all() and (colours[1, 1] > 0).any()


def test_training_curves_follow_each_other_with_a_gap_between_the_runs():
    curve = {'minutes': [1.0, 2.0], **{name: [2.0, 1.0] for name in TERMS}}
    svg = curves({'runs': [{'note': 'no record'}, {'curve': curve}, {'curve': curve}]})
    assert svg.count('<polyline') == 2 * len(TERMS)
    assert 'NaN' not in svg and 'nan' not in svg
