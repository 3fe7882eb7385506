"""What `geo4d robot check` finds wrong with a description, and that the shipped ones are well."""

from dataclasses import replace

from fakes import panda

from geo4d_ros.simulation.robot_check import check_robot


def wrong(robot):
    return {f.name: f.message for f in check_robot(robot) if not f.good}


def test_the_default_robot_is_well():
    assert wrong(panda.ROBOT) == {}


def test_each_mistake_is_found_by_its_own_check():
    bent = panda.ROBOT.urdf_source.replace('xyz="0 0 0.1034"', 'xyz="0 0.01 0.1034"')
    bare = bent.replace('<mass value="2.8"/>', '').replace('<mass value="0.73"/>', '')
    found = wrong(replace(panda.ROBOT, urdf_source=bare, rest=(0.0, -1.76, 0.0, -2.4, 0.0, 2.2, 0.8)))
    assert 'panda_joint2 is' in found['joint limits']
    assert 'z axis' in found['tool frame']
    assert 'masses' not in found  # the base and the hand do not move by a joint of their own
