"""Self and scene collision on shapes whose distances are known."""

import numpy as np
import pytest

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.motion.collision import CollisionChecker, Obstacle, Scene


def test_the_rest_posture_is_free(robot):
    assert CollisionChecker(robot, Scene.table(), 0.003).first_collision(robot.posture[None]) is None


def test_an_empty_scene_has_no_table(robot):
    low = lowered(robot, -0.05)
    assert CollisionChecker(robot, Scene(), 0.003).first_collision(low[None]) is None
    hit = CollisionChecker(robot, Scene.table(), 0.003).first_collision(low[None])
    assert hit is not None and 'table' in hit[1]


def lowered(robot, z):
    """Joint positions with the tool centre point straight below its rest place at height z."""
    T, q = robot.forward(robot.posture), robot.posture
    for height in np.linspace(T[2, 3], z, 60):
        T[2, 3] = height
        q = robot.inverse(T, q).q
    return q


def test_the_margin_is_kept(robot):
    """The fingers end 8 mm below the tool centre point in the test URDF (0.0584 + 0.053 - 0.1034)."""
    q = lowered(robot, 0.008 + 0.004)  # 4 mm above the table
    assert CollisionChecker(robot, Scene.table(), 0.003).first_collision(q[None]) is None
    assert CollisionChecker(robot, Scene.table(), 0.005).first_collision(q[None]) is not None


def test_the_first_of_many_is_named(robot):
    q = np.stack([robot.posture, lowered(robot, -0.02), lowered(robot, -0.05)])
    assert CollisionChecker(robot, Scene.table(), 0.0).first_collision(q)[0] == 1
    assert CollisionChecker(robot, Scene.table(), 0.0).first_collision(q[:0]) is None


@pytest.mark.parametrize('shape', ['box', 'cylinder'])
def test_an_obstacle_at_the_hand_is_hit_and_one_beside_is_not(robot, shape):
    tip = robot.forward(robot.posture)[:3, 3]
    size = (0.12, 0.12, 0.04) if shape == 'box' else (0.06, 0.04)  # wider than the open fingers
    for shift, hit in ((np.zeros(3), True), (np.array([0, 0, -0.2]), False)):
        scene = Scene().with_obstacles(Obstacle('post', shape, tuple(tip + shift + [0, 0, -0.01]), size))
        found = CollisionChecker(robot, scene, 0.0).first_collision(robot.posture[None])
        assert (found is not None) == hit
        assert not hit or 'post' in found[1]


def test_yaw_turns_a_box(robot):
    tip = robot.forward(robot.posture)[:3, 3]
    beam = {'centre': (tip[0] + 0.15, tip[1] + 0.045, tip[2]), 'size': (0.4, 0.02, 0.02)}  # beside, at a finger
    for yaw, hit in ((0.0, True), (np.pi / 2, False)):
        scene = Scene((Obstacle('beam', 'box', yaw=yaw, **beam),))
        assert (CollisionChecker(robot, scene, 0.0).first_collision(robot.posture[None]) is not None) == hit


def test_a_folded_arm_hits_itself(robot):
    folded = np.array([0.0, 1.2, 0.0, -3.0, 0.0, 3.7, 0.0])  # the hand drives into the base
    hit = CollisionChecker(robot, Scene(), 0.0).first_collision(folded[None])
    assert hit is not None and 'link' in hit[1]


@pytest.mark.parametrize('bad', [
    {'shape': 'ball'}, {'size': (1.0,)}, {'size': (1.0, -1.0, 1.0)}, {'centre': (0.0, float('nan'), 0.0)},
    {'centre': (0.0, 0.0)}, {'yaw': float('inf')}, {'shape': 'cylinder'},
])
def test_bad_obstacles_are_named(bad):
    with pytest.raises(ConfigurationError, match='shelf'):
        Obstacle(**{'name': 'shelf', 'shape': 'box', 'centre': (0.0, 0.0, 0.0), 'size': (1.0, 1.0, 1.0), **bad})
