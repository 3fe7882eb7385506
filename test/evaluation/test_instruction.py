"""`geo4d evaluate instruction`: what counts as success, wrong and recognised, and one oracle episode of each kind."""

import os

os.environ.setdefault('MUJOCO_GL', 'egl')

import json
from dataclasses import asdict

import pytest

from geo4d_ros.cli.evaluate.instruction import summarise
from geo4d_ros.cli.main import main
from geo4d_ros.evaluation.closed_loop.instruction import InstructionReport, run_instructed, scene_of
from geo4d_ros.evaluation.closed_loop.runs import EpisodeOptions
from geo4d_ros.simulation.tasks import BUILT_IN

TASK = 'apple'


def report(scenes, success, wrong=False, ended='', target='present', pixels=50.0):
    return InstructionReport(TASK, 1, scenes, target, ('cereal',), 'words', success, wrong, ended, 0, 3,
                             figures={'object_pixels': pixels})


def test_shares_are_over_their_own_kind_of_scene():
    reports = [report('mixed', True, ended='TASK_DONE'), report('mixed', False, wrong=True, ended='CYCLE_LIMIT'),
               report('mixed', False, ended='NOTHING_TO_DO'), report('mixed', True, ended='TASK_DONE'),
               report('idle', True, ended='NOTHING_TO_DO', target='absent', pixels=1.0),
               report('idle', False, ended='CYCLE_LIMIT', target='done', pixels=60.0)]
    out = summarise(reports, [TASK])
    json.dumps(out, default=asdict)
    assert out['success_rate'] == 0.5 and out['wrong_object_rate'] == 0.25 and out['n'] == 4
    nothing = out['nothing_to_do']
    assert nothing['recall'] == 0.5 and nothing['recall_absent'] == 1 and nothing['recall_done'] == 0
    assert nothing['false_alarm_rate'] == 0.25  # gave up although there was work
    assert out['tasks'][TASK]['failures'] == {'CYCLE_LIMIT': 1, 'NOTHING_TO_DO': 1}
    assert out['verdict_auroc']['object_pixels'] == pytest.approx(0.5)


def test_without_idle_scenes_there_is_no_recall():
    assert summarise([report('mixed', True)], [TASK])['nothing_to_do']['recall'] is None


def test_evaluation_speaks_in_words_that_training_never_heard():
    for task in BUILT_IN:
        assert all(scene_of('mixed', task, seed)[1] in BUILT_IN[task].unseen_instructions for seed in range(10))


@pytest.mark.parametrize('extra', [['--episodes', '0'], ['--idle', '-1'], ['--task', 'juggle'],
                                   ['--generator', 'oracle', '--readout', 'state']])
def test_bad_options_end_in_one_line(capsys, extra):
    assert main(['evaluate', 'instruction', *extra]) == 2
    assert '\n' not in capsys.readouterr().err.strip()


def test_the_oracle_moves_the_named_object_and_rests_where_there_is_none():
    options = EpisodeOptions(None, 'video')
    done = run_instructed(options, TASK, 700_001, 'mixed')
    assert done.success and not done.wrong and done.moved[TASK] > 0.1 and done.closed >= 1
    seed = next(s for s in range(20) if scene_of('idle', TASK, s)[0].target == 'absent')
    rests = run_instructed(options, TASK, seed, 'idle')
    assert rests.success and rests.ended == 'TASK_DONE' and rests.closed == 0


def test_a_run_that_a_verdict_ends_keeps_the_figures_of_its_first_look(monkeypatch):
    from geo4d_ros.loop import verdict
    from geo4d_ros.simulation import port

    nothing = verdict.Judgement(verdict.Verdict.NOTHING_TO_DO)
    monkeypatch.setattr(port, 'judge', lambda video, opening: nothing)
    monkeypatch.setattr(verdict, 'figures', lambda video: {'object_pixels': 0.0})
    ended = run_instructed(EpisodeOptions(None, 'video'), TASK, 1, 'idle')
    assert ended.ended == 'NOTHING_TO_DO' and ended.cycles == 2 and ended.figures == {'object_pixels': 0.0}
