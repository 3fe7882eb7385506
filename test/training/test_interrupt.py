"""Ctrl-C ends a training after the step it is in and what was learnt is saved; no step at all is no training."""

import signal

import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.errors import ConfigurationError
from geo4d_ros.training import budget
from geo4d_ros.training.budget import Budget, interruptible, require_steps


@pytest.fixture(autouse=True)
def keyboard():
    """Ctrl-C as in a terminal: what is started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_ctrl_c_ends_every_budget_the_second_one_the_program():
    with interruptible() as asked:
        assert not Budget(None).over and not Budget(5.0).over
        signal.raise_signal(signal.SIGINT)
        assert asked.is_set() and Budget(None).over and Budget(5.0).over
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with interruptible() as asked:
        assert not asked.is_set() and not Budget(None).over


def test_outside_ctrl_c_is_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_no_step_is_no_training():
    require_steps(1)
    with pytest.raises(ConfigurationError, match='no step was trained'):
        require_steps(0)


def test_the_command_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from geo4d_ros.cli.train import generator

    class Trainer:
        @staticmethod
        def train(values):
            spent = Budget(100.0)
            while not spent.over:
                signal.raise_signal(signal.SIGINT)
            return tmp_path

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generator.importlib, 'import_module', lambda name: Trainer)
    (tmp_path / 'c.yaml').write_text('model: two_view\n')
    assert generator.run(generator_arguments(tmp_path)) == 130
    assert 'the same command goes on from there' in capsys.readouterr().out
    assert not Budget(None).over


def generator_arguments(folder):
    import argparse

    from geo4d_ros.cli.train import generator

    parser = argparse.ArgumentParser()
    generator.add_arguments(parser)
    return parser.parse_args(['--config', str(folder / 'c.yaml')])


def test_processes_that_prepare_data_outlast_it():
    before = signal.getsignal(signal.SIGINT)
    try:
        budget.ignore_interrupt(0)
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_options_that_train_nothing_are_refused(capsys):
    assert main(['train', 'opening', '--data', 'x', '--out', 'y', '--minutes', '0']) == 2
    assert '--minutes' in capsys.readouterr().err
