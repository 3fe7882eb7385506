"""The cell's thread: the clock never goes back, goals end on a reset, errors reach who asked."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import panda

from geo4d_ros.simulation.controllers import JointPath, Outcome, Tolerances
from geo4d_ros.simulation.runner import CellRunner


class StubCell:
    """Joints and fingers go where they are told, at once."""

    dt, robot = 0.002, panda.ROBOT

    def __init__(self, opening=0.08):
        bodies = [SimpleNamespace(name='panda_link0', id=0), SimpleNamespace(name='object', id=1)]
        self.model = SimpleNamespace(nbody=2, body=lambda i: bodies[i])
        self.data = SimpleNamespace(qpos=np.zeros(9), xpos=np.zeros((2, 3)), xquat=np.tile([1.0, 0, 0, 0], (2, 1)))
        self.joint_positions, self.joint_velocities = np.zeros(7), np.zeros(7)
        self.opening, self.T_base_gripper = opening, np.eye(4)

    def set_joint_target(self, q, velocity):
        self.joint_positions, self.joint_velocities = np.array(q), np.array(velocity)

    def set_opening_target(self, opening):
        self.opening = opening

    def step(self, n):
        return None


@pytest.fixture
def runner():
    made = CellRunner(StubCell, 0.0)
    made.stamps = []
    made.on_state = lambda state: made.stamps.append((state.stamp, state.generation))
    made.start()
    yield made
    made.close()


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def start(runner, duration=1.0):
    path = JointPath(np.array([duration]), np.full((1, 7), 0.3))
    with runner.lock:
        return runner.trajectory.start(path, Tolerances(np.full(7, 1.0), np.full(7, 0.01)), runner.now)


def test_a_goal_runs_to_its_end(runner):
    goal = start(runner)
    wait_for(lambda: goal.outcome is not None)
    assert goal.outcome is Outcome.SUCCEEDED
    np.testing.assert_allclose(runner.cell.joint_positions, 0.3)


def test_a_reset_ends_the_goal_and_the_clock_goes_on(runner):
    goal = start(runner, duration=1e6)
    runner.reset(lambda: StubCell(opening=0.01))
    assert goal.outcome is Outcome.PREEMPTED
    assert runner.cell.opening == 0.01
    wait_for(lambda: runner.stamps and runner.stamps[-1][1] == 1)
    stamps = [stamp for stamp, _ in runner.stamps]
    assert stamps == sorted(stamps) and stamps[0] >= 1_000_000_000


def test_a_gripper_command_arrives(runner):
    with runner.lock:
        runner.set_opening_target(0.02)
    wait_for(lambda: not runner.gripper.active)
    assert runner.gripper.reached


def test_an_error_goes_to_who_asked_and_the_thread_lives_on(runner):
    def broken():
        raise ValueError('no such cell')

    with pytest.raises(ValueError, match='no such cell'):
        runner.reset(broken)
    assert runner.running
    assert runner.call(lambda: runner.now) > 1.0


def test_after_close_nothing_runs(runner):
    runner.close()
    assert not runner.running
    stopped = runner.now
    time.sleep(0.02)
    assert runner.now == stopped
