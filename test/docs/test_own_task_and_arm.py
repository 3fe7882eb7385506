"""The tutorials on own tasks and own arms, run block by block as they are written."""

import re
import shlex
from pathlib import Path

import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.errors import SimulationError
from geo4d_ros.robots.registry import load_robot
from geo4d_ros.simulation.tasks import TASKS, task_class

PAGES = Path(__file__).resolve().parents[2] / 'docs/tutorials'


def run(page, names):
    for kind, text in re.findall(r'^```(bash|python)\n(.*?)^```', (PAGES / page).read_text(), re.S | re.M):
        if kind == 'python':
            exec(compile(text, page, 'exec'), names)
        else:
            for line in text.splitlines():
                assert main(shlex.split(line)[1:]) == 0, line


@pytest.mark.slow
def test_the_page_on_own_tasks_does_what_it_says():
    names: dict = {}
    try:
        run('own_task.md', names)
        assert names['result'].success and 'block' in TASKS
    finally:
        TASKS.remove('block')
    with pytest.raises(SimulationError, match=r'unknown task .*pick one of cereal, spatula, apple'):
        task_class('block')


@pytest.mark.slow
def test_the_page_on_own_arms_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run('own_arm.md', {})
    assert 'FAIL' not in capsys.readouterr().out and (tmp_path / 'my_arm.png').is_file()
    assert load_robot('my_arm.yaml').name == 'my_arm'
