import numpy as np
import pytest
from fakes.panda import MAX_ACCELERATION, MAX_VELOCITY

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.simulation.controllers import (
    GripperController,
    JointPath,
    Outcome,
    Tolerances,
    TrajectoryController,
    plan_stop,
)

TICK = 0.004
TOLERANCES = Tolerances(np.full(7, 0.1), np.full(7, 0.01))


def ramp(duration=1.0, amount=0.3, n=5):
    """A smooth-ended path of `amount` rad in every joint, positions and velocities given."""
    t = np.linspace(0, 1, n + 1)[1:]
    positions = np.tile((amount * (3 * t**2 - 2 * t**3))[:, None], (1, 7))
    velocities = np.tile((amount * (6 * t - 6 * t**2) / duration)[:, None], (1, 7))
    return JointPath(t * duration, positions, velocities)


def follow(controller, start=0.0, ticks=1000, lag=None, until=lambda c: not c.moving):
    """Run ticks with an ideal (or offset) robot; returns the commanded joints (n, 7)."""
    commands = []
    for k in range(ticks):
        measured = controller.q - (0 if lag is None else lag)
        commands.append(controller.update(start + k * TICK, measured, controller.dq).copy())
        if until(controller):
            break
    return np.array(commands)


def test_a_path_ends_at_its_goal_and_succeeds():
    controller = TrajectoryController(np.zeros(7), MAX_VELOCITY, np.array(MAX_ACCELERATION))
    goal = controller.start(ramp(), TOLERANCES, 0.0)
    commands = follow(controller)
    assert goal.outcome is Outcome.SUCCEEDED
    np.testing.assert_allclose(commands[-1], 0.3, atol=1e-9)
    assert np.abs(np.diff(commands, axis=0)).max() / TICK < 0.5


@pytest.mark.parametrize('order', [1, 2, 3])
def test_every_interpolation_order_passes_through_the_points(order):
    path = ramp()
    path = JointPath(
        path.times,
        path.positions,
        path.velocities if order > 1 else None,
        np.zeros_like(path.positions) if order > 2 else None,
    )
    controller = TrajectoryController(np.zeros(7), MAX_VELOCITY, np.array(MAX_ACCELERATION))
    controller.start(path, TOLERANCES, 0.0)
    for t, q in zip(path.times, path.positions, strict=True):
        np.testing.assert_allclose(controller.update(t, q, np.zeros(7)), q, atol=1e-9)


def test_cancel_decelerates_within_the_limits_and_stands_still():
    controller = TrajectoryController(np.zeros(7), MAX_VELOCITY, np.array(MAX_ACCELERATION))
    goal = controller.start(ramp(), TOLERANCES, 0.0)
    follow(controller, ticks=int(0.5 / TICK), until=lambda c: False)
    speed = controller.dq.copy()
    assert speed.max() > 0.3
    controller.stop(Outcome.CANCELED, 'asked', 0.5)
    assert not controller.active
    commands = follow(controller, 0.5)
    velocity = np.diff(commands, axis=0) / TICK
    acceleration = np.diff(velocity, axis=0) / TICK
    assert goal.outcome is Outcome.CANCELED
    assert not controller.moving
    assert (np.abs(acceleration) <= 0.45 * np.array(MAX_ACCELERATION) + 0.1).all()
    assert len(commands) * TICK < 0.4
    np.testing.assert_allclose(controller.dq, 0)


def test_leaving_the_path_aborts_with_the_joint_named():
    controller = TrajectoryController(np.zeros(7), MAX_VELOCITY, np.array(MAX_ACCELERATION))
    goal = controller.start(ramp(), TOLERANCES, 0.0)
    lag = np.zeros(7)
    lag[3] = 0.2
    follow(controller, lag=lag, until=lambda c: not c.active)
    assert goal.outcome is Outcome.PATH_TOLERANCE_VIOLATED
    assert 'joint 4' in goal.message


def test_never_arriving_aborts_after_the_patience():
    controller = TrajectoryController(np.zeros(7), MAX_VELOCITY, np.array(MAX_ACCELERATION))
    goal = controller.start(ramp(), TOLERANCES, 0.0)
    follow(controller, lag=np.full(7, 0.02), until=lambda c: not c.active)
    assert goal.outcome is Outcome.GOAL_TOLERANCE_VIOLATED


def test_a_newer_goal_goes_on_from_the_commanded_state_without_a_jump():
    controller = TrajectoryController(np.zeros(7), MAX_VELOCITY, np.array(MAX_ACCELERATION))
    goal = controller.start(ramp(), TOLERANCES, 0.0)
    first = follow(controller, ticks=100, until=lambda c: False)
    controller.start(ramp(2.0, 0.1), TOLERANCES, 0.4)
    assert goal.outcome is Outcome.PREEMPTED
    second = follow(controller, 0.4)
    assert np.abs(second[0] - first[-1]).max() < 0.003
    np.testing.assert_allclose(second[-1], 0.1, atol=1e-9)


def test_a_path_faster_than_the_joints_is_refused():
    controller = TrajectoryController(np.zeros(7), MAX_VELOCITY, np.array(MAX_ACCELERATION))
    assert controller.check(ramp()) == ''
    assert 'rad/s' in controller.check(ramp(duration=0.05))
    assert 'joints' in controller.check(JointPath(np.array([1.0]), np.zeros((1, 6))))


@pytest.mark.parametrize('times', [[1.0, 1.0], [2.0, 1.0], [np.nan, 2.0], [-1.0, 2.0]])
def test_bad_times_are_refused(times):
    with pytest.raises(InvalidInputError, match='time_from_start'):
        JointPath(np.array(times), np.zeros((2, 7)))


def test_nan_positions_are_refused():
    with pytest.raises(InvalidInputError, match='NaN'):
        JointPath(np.array([1.0]), np.full((1, 7), np.nan))


def test_a_stop_from_rest_takes_no_time():
    assert plan_stop(np.zeros(7), np.zeros(7), np.zeros(7), np.ones(7), np.ones(7)).duration == pytest.approx(
        0
    )


def move_gripper(openings, target):
    gripper = GripperController()
    gripper.start(target, 0.0)
    for k, opening in enumerate(openings):
        gripper.update(k * TICK, opening)
        if not gripper.active:
            break
    return gripper


def test_a_free_gripper_reaches_its_target():
    gripper = move_gripper(np.linspace(0.08, 0.0, 300), 0.0)
    assert gripper.reached
    assert not gripper.stalled


def test_fingers_on_an_object_stall():
    gripper = move_gripper(np.maximum(np.linspace(0.08, 0.0, 300), 0.04), 0.0)
    assert gripper.stalled
    assert not gripper.reached
