"""A robot and a plain plan for the motion tests."""

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy with other work makes examples slowly: that is no failure.
settings.register_profile('busy machine', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('busy machine')
NOW = 1_000_000_000_000


@pytest.fixture(scope='session')
def robot():
    from fakes import panda_urdf

    from geo4d_ros.robots.kinematics import RobotModel
    return RobotModel.from_urdf(panda_urdf.urdf_text())


@pytest.fixture
def limits():
    from geo4d_ros.motion.limits import MotionLimits
    return MotionLimits()


@pytest.fixture
def make_plan(robot):
    """A plan from the rest posture through offsets (n, 3) [m], gripper open unless told otherwise."""
    from geo4d_ros.types import Plan

    def make(offsets, opening=None, **changes):
        T_start = robot.forward(robot.posture)
        n = len(offsets)
        T = np.tile(T_start, (n, 1, 1))
        T[:, :3, 3] += np.asarray(offsets, float)
        values = {'id': 'plan', 'T_base_gripper': T,
                  'opening': np.full(n, 0.08) if opening is None else np.array(opening),
                  'time_from_start': 0.5 * np.arange(1, n + 1), 'observation_stamp': NOW - 10**9,
                  'T_base_gripper_start': T_start, 'opening_start': 0.08, 'confidence': np.ones(n)}
        return Plan(**{**values, **changes})
    return make


@pytest.fixture
def state(robot):
    from geo4d_ros.motion.planning import RobotState
    return RobotState(robot.posture.copy(), np.zeros(robot.dof), 0.08, NOW - 10**7)
