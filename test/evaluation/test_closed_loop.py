"""The loop against a real cell with tiny generators: true poses, frozen video, nonsense."""

import os

os.environ.setdefault('MUJOCO_GL', 'egl')

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('mujoco')

from fakes import panda

from geo4d_ros.errors import InvalidInputError
from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras, resized_camera
from geo4d_ros.evaluation.closed_loop.episode import LoopSetup, run_loop
from geo4d_ros.evaluation.closed_loop.failure_analysis import judge_cycles
from geo4d_ros.evaluation.closed_loop.oracle import OracleGenerator, true_future
from geo4d_ros.evaluation.closed_loop.runs import EpisodeOptions, run_episode
from geo4d_ros.evaluation.simulated_truth import clip_of, copy_video
from geo4d_ros.geometry.cameras import project
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.loop.machine import LoopConfig
from geo4d_ros.robots.kinematics import RobotModel
from geo4d_ros.simulation.cell import Cell
from geo4d_ros.types import GripperTrack, Plan, TrackStatus

SEED = 510_000
SENSOR = (120, 160)


@pytest.fixture(scope='module')
def robot():
    return RobotModel.from_urdf(panda.urdf_text())


@pytest.fixture
def scene():
    cell = Cell('apple', SEED)
    with CellRig(cell.model, episode_cameras(SEED, 'held-out', SENSOR)) as rig:
        yield cell, rig


class StateTracker:
    """Hands on the track that comes with the video."""

    name, readout = 'state', 'state'

    def track(self, video, observation):
        return video.state

    def close(self):
        pass


class TrueTrack:
    """The oracle's video with the true track as its state stream; counts its calls."""

    name, frames, dt = 'true-track', 10, 0.5

    def __init__(self, cell, rig, change=None):
        self.cell, self.rig, self.change, self.calls = cell, rig, change, 0

    def predict(self, observation, seed=0):
        self.calls += 1
        clip = clip_of(true_future(self.cell, self.rig, self.frames, self.dt))
        track = self.change(clip.track) if self.change else clip.track
        return replace(clip.video, state=track)


def _run(scene, robot, generator, cycles=2, **config):
    cell, rig = scene
    setup = LoopSetup(generator, StateTracker(), robot,
                      config=LoopConfig(dry_run=False, auto=True, recover=True, max_cycles=cycles, **config))
    return run_loop(cell, rig, setup, film=True)


def test_oracle_leaves_the_cell_as_it_was(scene):
    cell, rig = scene
    before = cell.save_state().values
    recording = true_future(cell, rig, 10, 0.5)
    np.testing.assert_array_equal(cell.save_state().values, before)
    assert len(recording) == 11
    np.testing.assert_allclose(recording.T_base_gripper[0], cell.T_base_gripper)
    assert np.linalg.norm(recording.T_base_gripper[-1, :3, 3] - recording.T_base_gripper[0, :3, 3]) > 0.1


def test_observation_agrees_with_the_truth(scene):
    """The gripper pose of the observation projects onto gripper pixels of the rendered image."""
    cell, rig = scene
    observation = rig.observe(cell)
    assert observation.views[0].rgb.shape == (*SENSOR, 3)
    labels = rig.snapshot(cell)['labels'][0]
    small = rig.small_cameras[0]
    T_ref_hand = observation.T_ref_gripper.copy()
    hand = transform_points(T_ref_hand, np.array([[0, 0, -0.07]]))
    pixels, _ = project(hand, small.K)
    u, v = np.rint(pixels[0]).astype(int)
    assert np.isin(labels[v - 1:v + 2, u - 1:u + 2], (1, 2, 3, 4)).any()


def test_cameras_are_fixed_by_the_seed_and_resize():
    a, b = episode_cameras(1, 'held-out'), episode_cameras(1, 'held-out')
    np.testing.assert_array_equal(a[0].T_base_camera, b[0].T_base_camera)
    small = resized_camera(a[0], (96, 128))
    direct = episode_cameras(1, 'held-out', (96, 128))[0]
    np.testing.assert_allclose(small.K, direct.K)


def test_true_poses_lift_the_apple_within_a_few_cycles(scene, robot):
    cell, _ = scene
    height = cell.object_pose()[2, 3]
    result = _run(scene, robot, TrueTrack(*scene), cycles=4)
    assert cell.object_pose()[2, 3] > height + 0.05 or result.success
    assert any(c.closed for c in result.cycles)
    assert not any(c.missed for c in result.cycles)
    assert set(result.stages) == {'observe', 'predict', 'track', 'plan'}
    assert result.film and result.film[0][0].shape[0] == 2


def test_a_frozen_prediction_ends_the_loop_without_motion(scene, robot):
    cell, rig = scene

    class Frozen(TrueTrack):
        def predict(self, observation, seed=0):
            return copy_video(clip_of(true_future(self.cell, self.rig, self.frames, self.dt)))

    before = cell.T_base_gripper
    result = _run(scene, robot, Frozen(cell, rig), cycles=6)
    assert not result.success and result.reason == 'TASK_DONE'
    assert np.linalg.norm(cell.T_base_gripper[:3, 3] - before[:3, 3]) < 0.005


def test_a_plan_into_the_table_is_refused_and_the_arm_only_goes_back_up(scene, robot):
    cell, rig = scene
    before = cell.T_base_gripper

    def under_the_table(track):
        T_base = rig.cameras[0].T_base_camera @ track.T_ref_gripper
        T_base[1:, 2, 3] = -0.05
        return replace(track, T_ref_gripper=invert(rig.cameras[0].T_base_camera) @ T_base)

    result = _run(scene, robot, TrueTrack(cell, rig, under_the_table), cycles=6)
    assert result.reason == 'TOO_MANY_REFUSALS'
    assert all(c.reason for c in result.cycles) and [c.retreated for c in result.cycles] == [True, True, False]
    moved = cell.T_base_gripper[:3, 3] - before[:3, 3]
    assert np.linalg.norm(moved[:2]) < 0.005 and moved[2] == pytest.approx(0.05 + 0.1, abs=0.005)


def test_a_lost_track_and_a_broken_prediction_are_refused_with_their_code(scene, robot):
    def lost(track):
        status = (TrackStatus.OK,) + (TrackStatus.LOST,) * (len(track) - 1)
        return replace(track, status=status)

    assert {c.reason for c in _run(scene, robot, TrueTrack(*scene, lost), cycles=6).cycles} == {'TRACK_LOST'}

    class Broken(TrueTrack):
        def predict(self, observation, seed=0):
            raise InvalidInputError('no')

    result = _run(scene, robot, Broken(*scene), cycles=6)
    assert {c.reason for c in result.cycles} == {'PREDICTION_INVALID'}


def test_judging_measures_a_shifted_plan_and_leaves_a_true_one(scene, robot):
    def shifted(track):
        T = track.T_ref_gripper.copy()
        T[2:, :3, 3] += [0.0, 0.0, 0.04]
        return replace(track, T_ref_gripper=T)

    cell, rig = scene
    result = _run(scene, robot, TrueTrack(cell, rig), cycles=1)
    good = judge_cycles(cell, rig, result.cycles, 5, 10, 0.5)
    assert good[0].plan_error_m < 0.005 and good[0].prediction_error_m < 0.005
    cell.restore_state(result.cycles[0].before)
    result = _run(scene, robot, TrueTrack(cell, rig, shifted), cycles=1)
    bad = judge_cycles(cell, rig, result.cycles, 5, 10, 0.5)
    assert 0.02 < bad[0].plan_error_m < 0.05


def test_plan_holds_the_trusted_frames_in_the_base_frame():
    track = GripperTrack.example(6)
    track = replace(track, status=(TrackStatus.OK,) * 4 + (TrackStatus.LOST,) * 2)
    T_base_ref = np.eye(4)
    T_base_ref[:3, 3] = [1, 2, 3]
    stamps = 7 + np.arange(6, dtype=np.int64) * 500_000_000
    plan = Plan.of_track(track, T_base_ref, stamps, 'p')
    assert len(plan.T_base_gripper) == 3
    np.testing.assert_allclose(plan.time_from_start, [0.5, 1.0, 1.5])
    np.testing.assert_allclose(plan.T_base_gripper[0, :3, 3], track.T_ref_gripper[1, :3, 3] + [1, 2, 3])
    assert plan.observation_stamp == 7


def test_an_episode_with_the_real_tracker_gives_a_plain_report(tmp_path):
    options = EpisodeOptions(None, 'video', max_cycles=1, films=str(tmp_path))
    report = run_episode(options, 'apple', SEED)
    assert not report.success and report.cause in ('tracking', 'timeout', 'gate_refusal')
    assert report.cycles[0]['prediction_error_m'] == pytest.approx(0, abs=1e-6)
    assert len(report.stages['predict']) == 1
    if report.film:
        assert os.path.getsize(report.film) > 1000


def test_oracle_generator_is_deterministic(scene):
    cell, rig = scene
    oracle = OracleGenerator(cell, rig)
    observation = rig.observe(cell)
    a, b = oracle.predict(observation, 0), oracle.predict(observation, 1)
    np.testing.assert_array_equal(a.points, b.points)
    assert a.state is None and a.gripper_mask is not None
