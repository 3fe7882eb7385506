"""The demo's page in a real browser: its points are drawn, by its own script, with the network out of reach."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geo4d_ros.cli.pages.browser import browser, opened, photographed
from geo4d_ros.cli.pages.pictures import write
from geo4d_ros.reports.html import HtmlReport
from geo4d_ros.types import Video4D

pytestmark = pytest.mark.skipif(browser() is None, reason='no Chromium on this machine')


@pytest.fixture
def page(tmp_path) -> Path:
    report = HtmlReport('A page')
    report.cloud(Video4D.example(), 'points')
    report.write(tmp_path / 'page.html')
    return tmp_path / 'page.html'


def test_points_are_drawn_without_a_word_on_the_console(page):
    document, console = opened(page)
    assert int(re.search(r'data-drawn="(\d+)"', document)[1]) > 1000
    assert '<output>frame 0</output>' in document and console == []


def test_the_picture_of_the_page_shows_the_colours_of_the_video(page, tmp_path):
    photographed(page, tmp_path / 'page.png', 800, 600)
    seen = {tuple(c) for c in np.asarray(Image.open(tmp_path / 'page.png').convert('RGB')).reshape(-1, 3).tolist()}
    video = Video4D.example()
    colours = {tuple(c) for c in video.rgb[:, 0][video.valid[:, 0]].tolist()}
    assert len(seen & colours) > 0.1 * len(colours)


def test_pictures_of_the_documentation_come_from_a_report(page, tmp_path):
    report, points = write(page, tmp_path / 'pictures')
    assert Image.open(report).size == (1000, 900) and Image.open(points).size == (560, 480)
    assert len(np.unique(np.asarray(Image.open(points).convert('RGB')).reshape(-1, 3), axis=0)) > 50
