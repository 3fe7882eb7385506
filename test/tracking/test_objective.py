"""Each residual's Jacobian against what a small change of the pose really does to the residual."""

import numpy as np
import pytest
from fakes.gripper_scene import gripper_scene

from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.tracking.clip import prepare
from geo4d_ros.tracking.model_tracker import ModelTracker
from geo4d_ros.tracking.objective import Problem
from geo4d_ros.tracking.segmentation.landmarks import LandmarkMaps, landmark_points, project_landmarks
from geo4d_ros.tracking.solver import apply
from geo4d_ros.training.segmenter.train import landmark_targets

OFF = np.array([0.015] * 3 + [0.003] * 3)  # [rad], [m]: how far the pose is from the truth
STEP = np.array([0.004] * 3 + [0.001] * 3)
SCALE = {'outlines': 1.0, 'points': 0.01, 'landmarks': 1.0}  # the gripper's distances jump a little from cell to cell


@pytest.fixture(scope='module')
def measured():
    """Everything measured of a known scene, and poses some millimetres and a degree off."""
    scene = gripper_scene(2, frames=3)
    chunk = prepare(scene.video, scene.observation)
    maps = []
    for view in range(2):
        T = invert(scene.video.T_ref_view[view]) @ scene.T_ref_gripper
        uv = project_landmarks(gripper_of(), T, scene.opening, scene.video.K[view])
        maps.append(landmark_targets(uv, (48, 64))[0][..., :-1].reshape(len(uv), 4, 48, 64))
    problem = Problem(chunk, scene.masks(chunk, None, 0.08), ModelTracker(gripper_of(), scene.masks)._sdf)
    t = np.arange(scene.video.frames)
    problem.focus(t, scene.T_ref_gripper, scene.opening)
    problem.landmarks = LandmarkMaps(np.stack(maps))
    return problem, t, apply(scene.T_ref_gripper, np.random.default_rng(0).normal(0, OFF, (len(t), 6))), scene.opening


def terms_of(kind, problem, t, openings, T_0):
    """Jacobians, residuals and use of one kind of evidence as a function of the poses."""
    if kind == 'outlines':  # on a plane, which sampling does not change, for the gradient of real fields is smoothed
        rows, columns = np.indices(problem.chunk.size)
        problem._distance[:] = 0.6 * columns - 0.8 * rows
        problem._gradient[:] = 0.6, -0.8
        problem._known[:] = 1
        outlines = problem.outlines(t, T_0, openings)
        return lambda T: problem.outline_terms(t, T, outlines, 8.0)
    if kind == 'points':
        return lambda T: (*problem.point_terms(t, T, openings)[:2], problem._point_weight[t])
    # A step of mean shift holds the landmarks where they were found.
    points = np.repeat(landmark_points(problem.sdf.gripper, openings)[:, None], problem.chunk.views, axis=1)
    found = problem.landmarks.find(t, problem._project(T_0, points)[1], 5)
    problem.landmarks.find = lambda *_: found
    return lambda T: problem.landmark_terms(t, T, openings, 5)[:3]


@pytest.mark.parametrize('axis', range(6))
@pytest.mark.parametrize('kind', ['outlines', 'points', 'landmarks'])
def test_a_jacobian_tells_what_a_small_change_of_the_pose_does(measured, kind, axis):
    problem, t, T, openings = measured
    terms = terms_of(kind, problem, t, openings, T)
    step = np.tile(np.where(np.arange(6) == axis, SCALE[kind] * STEP, 0), (len(t), 1))
    J, _, weight = terms(T)
    ahead, behind = terms(apply(T, step / 2)), terms(apply(T, -step / 2))
    used = (weight > 0) & (ahead[2] > 0) & (behind[2] > 0)
    told, done = (J @ step[0])[used], (ahead[1] - behind[1])[used]
    assert used.sum() > 20 and np.median(np.abs(told)) > 1e-7
    assert np.median(np.abs(done - told)) < 2e-3 * np.median(np.abs(told))
