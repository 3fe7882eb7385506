"""Training time: what counts, what does not, and that a resume goes on."""

import time

import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.training.budget import Budget


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_processor_time_leaves_out_waiting_and_what_is_between_steps():
    budget = Budget(1 / 60, 'processor')
    budget.start()
    time.sleep(0.2)
    busy(0.05)
    budget.stop()
    busy(0.1)
    assert 0.05 <= budget.spent_s < 0.1
    assert budget.fraction == pytest.approx(budget.spent_s)


def test_wall_time_counts_waiting():
    budget = Budget(0.05 / 60, 'wall')
    budget.start()
    assert not budget.over
    time.sleep(0.06)
    budget.stop()
    assert budget.over and budget.fraction == 1


def test_a_resumed_budget_goes_on_and_none_never_ends():
    first, second, endless = Budget(1), Budget(1), Budget(None)
    first.spent_s = 30.0
    second.load_state_dict(first.state_dict())
    assert second.fraction == 0.5
    endless.spent_s = 1e9
    assert endless.fraction == 0 and not endless.over


def test_an_unknown_clock_is_refused():
    with pytest.raises(ConfigurationError, match='wall, processor'):
        Budget(1, 'sundial')
