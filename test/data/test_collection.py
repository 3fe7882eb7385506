"""`geo4d collect` end to end at a tiny size: episodes that agree between cameras, resumable, one-line errors."""

import json

import numpy as np
import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.data.collect import Recording, interleave, record
from geo4d_ros.data.episodes import Episode, decode_depth, list_episodes
from geo4d_ros.geometry.cameras import unproject
from geo4d_ros.geometry.transforms import transform_points
from geo4d_ros.simulation.tasks import TASKS
from geo4d_ros.simulation.tasks.arrangement import Arrangement, draw_arrangement


@pytest.fixture(scope='module')
def collected(tmp_path_factory):
    """One apple demonstration, recorded through the command line."""
    out = tmp_path_factory.mktemp('collected')
    report = out / 'report.json'
    arguments = ['collect', '--task', 'apple', '--demos', '1', '--cameras', '2', '--seed-start', '7', '--out',
                 str(out / 'data'), '--jobs', '1', '--size', '48x64', '--json', str(report)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(out)
        assert main(arguments) == 0
        before = {p: p.stat().st_mtime_ns for p in (out / 'data').rglob('*')}
        first = json.loads(report.read_text())
        assert main(arguments) == 0
    again = json.loads(report.read_text())
    assert before == {p: p.stat().st_mtime_ns for p in (out / 'data').rglob('*')}
    return Episode.open(list_episodes(out / 'data')[0]), first, again


def test_report_and_resume(collected):
    episode, first, again = collected
    assert first['tasks'] == {'apple': {'kept': 1, 'existing': 0, 'failed': 0}}
    assert first['rgbd_frames'] == 2 * episode.frames and first['rgbd_frames_per_s'] > 0
    assert again['tasks']['apple'] == {'kept': 0, 'existing': 1, 'failed': 0}


def test_the_episode_tells_one_story(collected):
    episode = collected[0]
    data = episode.load()
    assert data['rgb'].shape[:4] == (2, episode.frames, 48, 64) and episode.attributes['success']
    assert np.diff(data['times']) == pytest.approx(0.25, abs=0.021)
    assert data['opening'].max() > 0.07 and data['opening'].min() > 0.03  # it closed on an apple of 5.5 cm
    for camera in range(2):
        depth = decode_depth(data['depth'][camera, 0])
        points = transform_points(data['T_base_camera'][camera], unproject(depth, data['K'][camera]))
        hand = (data['labels'][camera, 0] >= 2) & (data['labels'][camera, 0] <= 4) & (depth > 0)
        assert hand.sum() > 5
        tool = data['T_base_gripper'][0, :3, 3]
        assert np.linalg.norm(np.median(points[hand], 0) - tool) < 0.2
        table = (data['labels'][camera, 0] == 0) & (depth > 0) & (np.abs(points[..., 2]) < 0.1)
        assert np.median(np.abs(points[table][:, 2])) < 1e-3


def test_tasks_take_turns():
    assert interleave(['a', 'b'], 5, 2) == [('a', 5), ('b', 5), ('a', 6), ('b', 6)]


@pytest.mark.parametrize(('extra', 'word'), [(['--task', 'juggle'], 'juggle'), (['--demos', '0'], '--demos'),
                                             (['--perturb', '2'], 'perturb'), (['--cameras', '0'], 'cameras')])
def test_bad_arguments_end_in_one_line(tmp_path, capsys, extra, word):
    assert main(['collect', '--task', 'apple', '--out', str(tmp_path), *extra]) == 2
    message = capsys.readouterr().err.strip()
    assert word in message and '\n' not in message


def test_unwritable_directory(tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert main(['collect', '--task', 'apple', '--out', str(tmp_path / 'file' / 'data')]) == 2
    assert 'choose a writable' in capsys.readouterr().err


def test_ray_without_ray_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'ray', None)
    assert main(['collect', '--task', 'apple', '--demos', '1', '--out', str(tmp_path), '--ray',
                 'local']) == 2
    assert 'ray' in capsys.readouterr().err


def test_a_failed_demonstration_is_not_kept(tmp_path, monkeypatch):
    from geo4d_ros.simulation import rollout

    monkeypatch.setattr(rollout, 'rollout', lambda *a, **k: rollout.RolloutResult(False, 0.0, [], 'not at goal'))
    outcome = record(Recording(str(tmp_path), cameras=1, height=48, width=64), 'apple', 3)
    assert outcome.result == 'failed' and outcome.message == 'not at goal'
    assert list(tmp_path.iterdir()) == []


def test_idle_scenes_show_the_expert_at_rest(tmp_path):
    recording = Recording(str(tmp_path), cameras=1, height=48, width=64, scenes='idle', split='held-out')
    seed = next(s for s in range(20) if draw_arrangement('idle', 'apple', s) == Arrangement(target='absent'))
    assert record(recording, 'apple', seed).result == 'kept'
    episode = Episode.open(list_episodes(tmp_path)[0])
    assert episode.attributes['target'] == 'absent' and episode.instruction in TASKS['apple'].unseen_instructions
    data = episode.load()
    assert not (data['labels'] == 5).any()
    assert np.ptp(data['T_base_gripper'][:, :3, 3], axis=0).max() < 0.01
