"""Records hold every decision, survive a kill, and give the same decisions again."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.errors import ConfigurationError, InvalidInputError
from geo4d_ros.loop.events import Event, EventKind
from geo4d_ros.loop.machine import LoopConfig, Phase
from geo4d_ros.loop.record import Loop, Recorder, plan_from_json, read_record, replay
from geo4d_ros.motion.collision import Obstacle, Scene
from geo4d_ros.motion.limits import MotionLimits
from geo4d_ros.motion.planning import describe, plan_trajectory

NOW = 1_000_000_000_000


@pytest.fixture
def record(tmp_path, robot, state, make_plan):
    """A run of one executed cycle, one refused one and a fault."""
    path = tmp_path / 'run' / 'record.jsonl'
    limits, config = MotionLimits(), LoopConfig(dry_run=False, auto=True)
    scene = Scene.table().with_obstacles(Obstacle('post', 'cylinder', (0.5, 0.4, 0.2), (0.05, 0.4)))
    with Recorder(path) as recorder:
        recorder.header(config, limits, scene, robot, seed=7)
        loop = Loop(config, recorder)

        def plan(offsets, **changes):
            question = make_plan(offsets, [0.08, 0.03, 0.03], **changes)
            result = plan_trajectory(question, state, limits, scene, robot, NOW, 5)
            recorder.plan(question, state, NOW, 5, result)
            return question, result

        loop.handle(Event(EventKind.START, 1.0))
        loop.handle(Event(EventKind.TICK, 1.15))  # changes nothing: not recorded, though the next comes 0.05 s late
        loop.handle(Event(EventKind.OBSERVED, 1.1, {'cycle': 1, 'position': np.array([0.4, 0, 0.4]), 'opening': 0.08}))
        loop.handle(Event(EventKind.PREDICTED, 1.2, {'cycle': 1}))
        question, motion = plan([(0, 0, -0.03), (0, 0, -0.06), (0, 0, -0.09)])
        loop.handle(Event(EventKind.PLANNED, 1.3, {'cycle': 1, **describe(question, motion)}))
        recorder.cycle(cycle=1, seed=7, ages={'reference': 0.05}, timings={'predict': 0.4})
        plan([(0, 0, -0.5)] * 3, confidence=None)
        plan([(0, 0, -0.03)] * 3, opening_start=float('nan'))
        loop.handle(Event(EventKind.FAULT, 1.4, {'reason': 'PEER_DEAD', 'detail': 'tracker'}))
        loop.handle(Event(EventKind.STANDSTILL, 1.5))
        assert loop.state.phase is Phase.FAULT
    return path


def test_a_record_gives_the_same_decisions(record):
    assert replay(record) == []
    kinds = [line['type'] for line in read_record(record)]
    assert kinds == ['header', 'event', 'event', 'event', 'plan', 'event', 'cycle', 'plan', 'plan', 'event', 'event']


def test_a_record_may_begin_with_a_loop_that_ran_before(tmp_path, robot):
    config = LoopConfig()
    before = Loop(config)
    for kind, data in ((EventKind.START, {}), (EventKind.FAULT, {'reason': 'PEER_DEAD'}), (EventKind.STANDSTILL, {})):
        before.handle(Event(kind, 1.0, data))
    assert before.state.phase is Phase.FAULT
    with Recorder(tmp_path / 'second.jsonl') as recorder:
        recorder.header(config, MotionLimits(), Scene(), robot)
        loop = Loop(config, recorder)
        loop.state = before.state
        loop.handle(Event(EventKind.RESET, 2.0))
        (observe,) = loop.handle(Event(EventKind.START, 3.0))
    assert observe.data['cycle'] > 1
    assert replay(tmp_path / 'second.jsonl') == []


def test_a_changed_decision_is_found(record, tmp_path):
    lines = [json.loads(text) for text in record.read_text().splitlines()]
    lines[4]['result']['poses'] = 2
    lines[-1]['phase'] = 'IDLE'
    lines[5]['actions'] = []
    record.write_text('\n'.join(map(json.dumps, lines)))
    found = replay(record)
    assert len(found) == 3 and found[0].startswith('line 5.poses: recorded 2, now 3')
    assert 'line 6.actions' in found[1] and "recorded 'IDLE', now 'FAULT'" in found[2]


def test_other_limits_give_other_decisions(record):
    lines = [json.loads(text) for text in record.read_text().splitlines()]
    lines[0]['limits']['confidence'] = 0.99
    lines[0]['limits']['speed'] = 0.05
    record.write_text('\n'.join(map(json.dumps, lines)))
    assert any('duration' in difference for difference in replay(record))


def test_rounding_of_another_processor_is_no_difference(record):
    lines = [json.loads(text) for text in record.read_text().splitlines()]
    lines[4]['result']['gate_values']['condition_number'] *= 1 + 1e-9
    record.write_text('\n'.join(map(json.dumps, lines)))
    assert replay(record) == []


def test_the_command_says_what_differs(record, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['replay', str(record), '--json', str(tmp_path / 'r.json')]) == 0
    assert capsys.readouterr().out == '6 events, 3 plans, 1 cycles: 0 differences\n'
    assert json.loads((tmp_path / 'r.json').read_text())['differences'] == []
    record.write_text(record.read_text().replace('CONFIDENCE_MISSING', 'PLAN_STALE'))
    assert main(['replay', str(record)]) == 3
    assert 'PLAN_STALE' in capsys.readouterr().err


@pytest.mark.parametrize('text', ['', 'nonsense', '{"type": "event"}', '[1]\n', '{"type": "header", "version": 99}'])
def test_what_is_no_record_is_bad_input(tmp_path, text, capsys):
    path = tmp_path / 'x.jsonl'
    path.write_text(text)
    with pytest.raises(InvalidInputError):
        read_record(path)
    assert main(['replay', str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_missing_file_is_bad_input(tmp_path):
    assert main(['replay', str(tmp_path / 'none.jsonl')]) == 2


def test_a_line_cut_by_a_power_failure_is_left_out(record):
    whole = read_record(record)
    text = record.read_text()
    record.write_text(text[:-20])
    assert read_record(record) == whole[:-1] and replay(record) == []
    record.write_text(text.replace('"type": "cycle"', '"type": cycle'))
    with pytest.raises(InvalidInputError, match='line 7'):
        read_record(record)


def test_lines_are_in_the_file_at_once(tmp_path):
    recorder = Recorder(tmp_path / 'r.jsonl')
    recorder.cycle(cycle=1, values=np.arange(3), number=np.float64(0.5))
    assert json.loads((tmp_path / 'r.jsonl').read_text()) == {'type': 'cycle', 'cycle': 1, 'values': [0, 1, 2],
                                                              'number': 0.5}
    recorder.close()


def test_a_record_is_never_overwritten_nor_unwritable_in_silence(record, tmp_path):
    with pytest.raises(ConfigurationError, match='exists'):
        Recorder(record)
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigurationError, match='cannot write'):
        Recorder(tmp_path / 'file' / 'r.jsonl')


def test_plans_survive_a_record(make_plan):
    plan = make_plan([(0, 0, -0.03)] * 3)
    again = plan_from_json(json.loads(json.dumps(asdict(plan), default=lambda a: a.tolist())))
    for name in ('T_base_gripper', 'opening', 'time_from_start', 'T_base_gripper_start', 'confidence'):
        assert (getattr(again, name) == getattr(plan, name)).all()
    assert (again.id, again.observation_stamp, again.opening_start) == (plan.id, plan.observation_stamp, 0.08)
