"""No figure of the pages is typed by hand, and every link of them leads somewhere."""

import re
from pathlib import Path

import pytest

from geo4d_ros.reports.tables import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob('*.md')), *sorted(ROOT.glob('docs/**/*.md'))]


def test_figures_are_those_of_the_reports():
    assert main(['--check']) == 0, 'run python -m geo4d_ros.reports.tables'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)#\s]+)', page.read_text()):
        if '://' not in target:
            assert (page.parent / target).exists(), f'{page.name} links to {target}'
