"""The check of a data set finds what was broken on purpose, and nothing in sound data."""

import json

import numpy as np
import pytest
from fakes.synthetic_episodes import episode_arrays, write_episodes

from geo4d_ros.cli.main import main
from geo4d_ros.data.check import check_directory
from geo4d_ros.data.episodes import write_episode
from geo4d_ros.geometry.transforms import make_transform

ATTRIBUTES = {'task': 'apple', 'success': True, 'perturbed': False}


@pytest.fixture
def write(tmp_path):
    def one(arrays, directory='data', seed=0, **attributes):
        (tmp_path / directory).mkdir(exist_ok=True)
        write_episode(tmp_path / directory, arrays, {**ATTRIBUTES, 'seed': seed, **attributes})
        return tmp_path / directory
    return one


def moving(seed=0):
    """Arrays in which every camera's picture changes and the gripper is where it is labelled."""
    arrays = episode_arrays(seed)
    arrays['T_base_camera'][:] = np.eye(4)
    arrays['depth'][:] = np.where(arrays['labels'] == 2, 7000, 10_000)
    for t in range(len(arrays['times'])):  # the square's middle, through the camera at the base
        arrays['T_base_gripper'][t, :3, 3] = np.array([5 + t - 15.5, 13 - 15.5, 34]) / 34 * 0.7
    return arrays


def test_sound_data_has_no_problems(write):
    report = check_directory(write(moving()))
    assert report.problems() == [] and report.missing == () and not any(report.trainable.values())
    episode = report.episodes[0]
    assert (episode.frames, episode.cameras, episode.size) == (24, 3, (32, 32))
    assert episode.median_step_s == pytest.approx(0.25) and episode.view_agreement == 1.0
    assert episode.gripper_off < 0.03 and min(episode.valid_depth) == 1.0


def broken(name):
    arrays = moving()
    if name == 'gap':
        arrays['times'][12:] += 1.0
    elif name == 'no depth':
        arrays['depth'][1, :, 8:] = 0
    elif name == 'stuck camera':
        arrays['rgb'][2, :] = arrays['rgb'][2, :1]
    elif name == 'wrong pose':
        arrays['T_base_camera'][1] = make_transform(t=np.array([0, 0, -0.3]))
    elif name == 'gripper':
        arrays['T_base_gripper'][:, 1, 3] += 0.15
    return arrays


@pytest.mark.parametrize('name,words', [
    ('gap', 'a gap of 1.25 s'), ('no depth', 'camera 2 has depth at only 25%'),
    ('stuck camera', 'camera 3 repeats its picture in 100%'), ('wrong pose', 'check their calibration'),
    ('gripper', 'off its labels'),
])
def test_each_fault_is_found_and_only_it(write, name, words):
    problems = check_directory(write(broken(name))).problems()
    assert any(words in problem for problem in problems), problems
    assert len(problems) <= (2 if name == 'wrong pose' else 1)


def test_skew_sizes_duplicates_and_damage(write, tmp_path):
    directory = write(moving(0), seed=0, largest_skew_ms=80.0)
    write(moving(0), seed=1)
    small = {k: v[:, :, ::2, ::2] if k in ('rgb', 'depth', 'labels') else v for k, v in moving(2).items()}
    write(small, seed=2)
    (directory / 'apple-000009.zarr').mkdir()
    problems = check_directory(directory).problems()
    for words in ('80 ms apart', 'apple-000000.zarr and apple-000001.zarr show the same pictures',
                  'pictures of 2 sizes', 'damaged: '):
        assert any(words in problem for problem in problems), problems


def test_leaks_between_two_sets(write):
    ours = write(moving(0), seed=0)
    write(moving(1), seed=1)
    theirs = write(moving(0), 'test', seed=7)
    write(moving(5), 'test', seed=1)
    report = check_directory(ours, theirs)
    assert report.leaks == [('apple-000000.zarr', 'apple-000007.zarr', 'the same pictures'),
                            ('apple-000001.zarr', 'apple-000001.zarr', 'the same task and seed')]


def test_what_a_recording_lacks_is_no_problem_but_said(write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kept = ('rgb', 'depth', 'K', 'T_base_camera', 'times')
    write({k: v for k, v in moving().items() if k in kept})
    assert main(['data', 'check', 'data', '--films', '1']) == 0
    text = capsys.readouterr().out
    assert '1 episodes, 24 moments, 0 problems' in text and 'not trainable without labels' in text
    report = json.loads((tmp_path / 'outputs/data_check.json').read_text())
    assert 'labels' in report['missing'] and report['checks'][0]['gripper_off'] is None
    page = (tmp_path / 'outputs/data_check.html').read_text()
    assert page.count('<video') == 1 and 'no sensor gives them' in page


def test_problems_are_lines_and_exit_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['data', 'check', 'nowhere']) == 2
    write_episodes(tmp_path / 'data', 1)
    (tmp_path / 'data/apple-000001.zarr').mkdir()
    assert main(['data', 'check', 'data', '--films', '0']) == 2
    assert 'damaged: ' in capsys.readouterr().err
