"""The viewer's recordings: what was seen, predicted and tracked is in the file, at its time."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rerun', reason='rerun-sdk is not installed: make viewer')

from geo4d_ros.cli.main import main
from geo4d_ros.evaluation.rerun_scene import RerunScene
from geo4d_ros.observation_file import save_observation
from geo4d_ros.types import GripperTrack, Observation, Plan, Video4D


def printed(path):
    """What Rerun's own tool finds in the file."""
    tool = Path(sys.executable).with_name('rerun')
    result = subprocess.run([tool, 'rrd', 'print', '-v', path], capture_output=True, text=True, check=True, timeout=120)
    return result.stdout


def test_everything_of_a_cycle_is_in_the_file(tmp_path):
    path = tmp_path / 'cycle.rrd'
    video = Video4D.example()
    with RerunScene(path) as scene:
        scene.look(3, Observation.example(), video.T_ref_view)
        scene.prediction(3, video)
        scene.track(3, GripperTrack.example(), video.stamps)
        scene.plan(3, Plan.example(), np.eye(4))
        scene.verdict(3, 'CONFIDENCE_LOW', False)
    text = printed(path)
    for entity in ('/world/seen/reference/rgb', '/world/seen/second/depth', '/world/predicted/second/rgb',
                   '/world/predicted/points', '/world/track/poses', '/world/plan', '/world/arm', '/verdict'):
        assert entity in text, entity


def test_commands_write_observations_videos_and_recordings(tmp_path, capsys):
    observation, video, out = tmp_path / 'o.npz', tmp_path / 'video.npz', tmp_path / 'a.rrd'
    save_observation(observation, Observation.example())
    example = Video4D.example(frames=3)
    np.savez(video, **{k: getattr(example, k) for k in ('rgb', 'points', 'valid', 'stamps', 'K', 'T_ref_view')})
    assert main(['view', str(observation), '--out', str(out)]) == 0 and '/world/gripper' in printed(out)
    assert main(['view', str(video), '--out', str(out)]) == 0 and '/world/predicted/points' in printed(out)
    assert main(['view', str(tmp_path / 'none.npz'), '--out', str(out)]) == 2
    assert 'does not exist' in capsys.readouterr().err


def test_a_recording_is_shown_over_its_time(tmp_path, capsys, monkeypatch):
    from cli.test_observation_sources import recording

    from geo4d_ros.cli.observation import sources

    (tmp_path / 'bag').mkdir()
    monkeypatch.setattr(sources, 'first_recording', lambda path: (recording(), None))
    assert main(['view', str(tmp_path / 'bag'), '--out', str(tmp_path / 'a.rrd')]) == 0
    assert '5 of 5 moments' in capsys.readouterr().out
    text = printed(tmp_path / 'a.rrd')
    assert '/world/seen/reference/rgb' in text and '/world/gripper' in text
    monkeypatch.setattr(sources, 'first_recording', lambda path: (recording(delay=80_000_000), None))
    assert main(['view', str(tmp_path / 'bag'), '--out', str(tmp_path / 'b.rrd')]) == 2
    assert '80 ms away' in capsys.readouterr().err
