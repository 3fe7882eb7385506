"""Which moments of an episode tell that its work is still to be done, and that it is done."""

import numpy as np

from geo4d_ros.training.two_view.judge_fit import moments


class MadeUp:
    """Ten frames: the object is carried in frames 3 to 6, let go of in frame 7."""

    frames = 10

    def __init__(self, target=None):
        self.attributes = {} if target is None else {'target': target}
        self._pose = np.tile(np.eye(4), (10, 1, 1))
        self._pose[3:, 0, 3] = [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4]
        self._opening = np.array([0.08, 0.08, 0.08, 0.05, 0.05, 0.05, 0.05, 0.08, 0.08, 0.08])

    def read(self, name):
        return {'object_pose': self._pose, 'opening': self._opening}[name]


def kinds(target=None):
    found = {}
    for index, finished in moments(MadeUp(target), 3, np.random.default_rng(0)):
        found.setdefault(finished, set()).add(index)
    return found


def test_before_it_is_moved_and_after_it_is_let_go_of():
    found = kinds()
    assert found[False] == {0, 1, 2} and found[True] == {7, 8, 9} and len(found[None]) == 6


def test_scenes_without_work_give_no_moment_before_it():
    assert False not in kinds('done') and kinds('done')[True]
    assert set(kinds('absent')) == {None}
