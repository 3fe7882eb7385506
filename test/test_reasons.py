"""The table of reason codes is whole, and its page is made from it."""

import re
from pathlib import Path

import pytest

from geo4d_ros.reasons import Kind, Reason, table

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize('reason', Reason, ids=lambda r: r.code)
def test_every_code_has_a_kind_a_meaning_and_a_remedy(reason):
    assert isinstance(reason.kind, Kind) and len(reason.value) == 3
    assert len(reason.sentence) > 10 and reason.remedy and '|' not in reason.sentence + reason.remedy


def test_no_two_codes_are_one():
    assert len(Reason) == len(Reason.__members__)


def test_the_page_is_up_to_date():
    page = ROOT / 'docs' / 'reference' / 'reason_codes.md'
    assert page.read_text(encoding='utf-8') == table(), 'run python -m geo4d_ros.reasons'


def test_every_code_is_given_somewhere():
    """A code that nothing gives is a promise nobody keeps."""
    text = '\n'.join(p.read_text() for p in (ROOT / 'geo4d_ros').rglob('*.py') if p.name != 'reasons.py')
    unused = [r.code for r in Reason if not re.search(rf'\bReason\.{r.code}\b|[\'"]{r.code}[\'"]', text)]
    assert not unused
