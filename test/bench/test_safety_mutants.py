"""Rules that are switched off or loosened are noticed, put back afterwards, and vacuous runs are refused."""

import pytest

from geo4d_ros.bench.safety import evaluate, mutants
from geo4d_ros.cli.main import main
from geo4d_ros.motion import gates, planning, timing


@pytest.fixture(scope='module')
def bench():
    return evaluate._bench()


@pytest.mark.parametrize(('name', 'check'), [
    ('tilt', 'tilt'), ('openings', 'opening_range'), ('opening state', 'opening_state'), ('keep-out of the arm',
                                                                                       'scene_collision'),
    ('table of the arm', 'scene_collision'), ('held object', 'scene_collision'), ('speed x 1.3', 'tool_speed'),
    ('splines that keep to their samples', 'joint_limit'), ('approval', 'motion_not_approved')])
def test_a_missing_rule_is_noticed(bench, name, check):
    mutant = next(m for m in mutants.MUTANTS if m.name == name)
    result = mutants.try_mutant(mutant, bench, evaluate._judged, 30, 0)
    assert check in result['found'] and result['false_alarm'] == []


def test_a_rule_that_is_there_is_not_missed(bench):
    nothing = mutants.Mutant('nothing', ('table', 'tilting'))
    assert mutants.try_mutant(nothing, bench, evaluate._judged, 4, 0)['found'] == []


def test_mutants_change_what_they_name_and_put_it_back(bench):
    before = gates.tilt_prefix, planning.check_commanded, timing._nominal_time, planning.zones
    for mutant in mutants.MUTANTS:
        changed = []
        with mutants.applied(mutant.patches):
            changed = [getattr(place, name) is new for place, name, new in mutant.patches]
        assert all(changed) and (mutant.patches or mutant.limits or mutant.case or mutant.config), mutant.name
    assert before == (gates.tilt_prefix, planning.check_commanded, timing._nominal_time, planning.zones)
    assert len({m.name for m in mutants.MUTANTS}) == len(mutants.MUTANTS) >= 60


def test_what_the_report_says():
    results = {'a': {'found': ['tilt'], 'case': 0, 'tried': 1, 'false_alarm': []},
               'b': {'found': [], 'case': None, 'tried': 9, 'false_alarm': []}}
    report = mutants.report(results)
    assert (report['mutants'], report['noticed'], report['ratio'], report['missed']) == (2, 1, 0.5, ['b'])
    assert report['cases'] == 10 and report['noticed_by'] == {'a': ['tilt']} and not report['false_alarms']


@pytest.mark.parametrize('extra', [[], ['--mutate']])
def test_a_run_of_no_cases_is_refused(capsys, extra):
    assert main(['evaluate', 'safety', '--cases', '0', *extra]) == 2
    assert '--cases 0' in capsys.readouterr().err
