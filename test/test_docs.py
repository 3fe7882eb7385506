"""The documentation: pages made from the code are up to date, links lead somewhere, the notebook is whole."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / 'docs').rglob('*.md'), *ROOT.glob('*.md')])
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')


def test_the_pages_made_from_the_code_are_up_to_date():
    pytest.importorskip('rclpy')
    from geo4d_ros.cli.pages.reference import pages

    for name, text in pages().items():
        kept = (ROOT / 'docs' / 'reference' / name).read_text(encoding='utf-8')
        assert kept == text, f'{name}: run python -m geo4d_ros.cli.pages.reference'


def anchors(page):
    heads = re.findall(r'^#+ (.*)$', page.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', head.lower()).strip().replace(' ', '-') for head in heads}


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding='utf-8')):
        path, _, anchor = link.partition('#')
        if '://' in link or link.startswith('mailto:'):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f'{page.name} links to {link}'
        assert not anchor or anchor in anchors(target), f'{page.name} links to {link}'


def test_the_site_holds_every_page_it_names_and_links_to_nothing_outside():
    navigation = (ROOT / 'mkdocs.yml').read_text()
    named = re.findall(r': ([\w/]+\.md)$', navigation, re.MULTILINE)
    assert len(named) > 20 and all((ROOT / 'docs' / name).is_file() for name in named)
    assert yaml.safe_load(navigation)['site_dir'].startswith('outputs/')
    for page in (ROOT / 'docs').rglob('*.md'):
        for link in LINK.findall(page.read_text(encoding='utf-8')):
            inside = '://' in link or (page.parent / link.partition('#')[0]).resolve().is_relative_to(ROOT / 'docs')
            assert inside, f'{page.name}: {link} is not part of the site'


def test_the_notebook_is_whole():
    notebook = json.loads((ROOT / 'docs' / 'examples' / 'predict_from_file.ipynb').read_text())
    assert notebook['nbformat'] == 4
    for cell in notebook['cells']:
        assert not cell.get('outputs')
        if cell['cell_type'] == 'code':
            compile(''.join(cell['source']), 'notebook', 'exec')
