"""The state machine of the loop tests."""

import pytest
from loop_driver import Driver


@pytest.fixture
def loop():
    """A fresh loop that executes without asking."""
    return Driver()
