"""The list of faults is complete, names only codes that exist, and nothing of the fakes is in the package."""

from pathlib import Path

import pytest

import geo4d_ros
from geo4d_ros.bench.faults import FAULTS, Run, quantiles, select, summarise
from geo4d_ros.errors import InvalidInputError
from geo4d_ros.reasons import Reason

PACKAGE = Path(geo4d_ros.__file__).parent
FAKES = Path(__file__).parents[1] / 'fakes'
GOOD = Run('PEER_DEAD', 100.0, 5.0, 200.0, 0, True, True, True)


def test_codes_are_reasons_of_the_package():
    assert {code for fault in FAULTS for code in fault.codes} <= set(Reason.__members__)


def test_the_demanded_faults_are_there():
    names = {fault.name for fault in FAULTS}
    assert len(names) == len(FAULTS)
    assert {'camera_a_dead', 'camera_b_dead', 'cameras_swapped', 'frame_stuck', 'depth_zero', 'depth_nan',
            'late_by_1_s',
            'clock_back', 'wrong_encoding', 'no_intrinsics', 'transform_missing', 'transform_identity',
            'generator_raises', 'generator_hangs', 'prediction_nan', 'tracker_lost', 'joint_states_stall',
            'moveit_absent', 'goal_rejected', 'execution_aborted', 'execution_hangs', 'gripper_fails', 'operator_stop',
            'prediction_killed', 'executor_killed', 'cell_killed', 'joints_without_positions', 'joints_of_two_sources',
            'gripper_joint_silent', 'feedback_nan', 'feedback_empty', 'lens_unknown', 'depth_not_aligned', 'depth_unit',
            'description_changed'} <= names
    assert len(names) >= 45


def test_every_fault_of_the_cell_is_one_that_the_fake_knows():
    text = (FAKES / 'faulty_cell.py').read_text()
    assert not [fault.value for fault in FAULTS if fault.where == 'cell' and f"'{fault.value}'" not in text]


def test_the_package_neither_contains_nor_imports_the_fakes():
    for path in PACKAGE.rglob('*.py'):
        text = path.read_text()
        assert 'import fakes' not in text and 'from fakes' not in text, path
        assert "declare_parameter('fault'" not in text, path
    assert all((FAKES / name).is_file() for name in ('faulty_cell.py', 'prediction.py', 'moveit.py'))


def test_selection_by_name():
    assert select('') == FAULTS
    assert [fault.name for fault in select('frame_stuck, camera_b_dead')] == ['frame_stuck', 'camera_b_dead']
    with pytest.raises(InvalidInputError, match='flood'):
        select('flood')


@pytest.mark.parametrize('flaw', [{'code': ''}, {'goals_after': 1}, {'diagnosed': False}, {'alive': False},
                                  {'recovered': False}])
def test_one_flaw_spoils_a_run(flaw):
    values = GOOD.__dict__ | flaw
    assert GOOD.ok
    assert not Run(**values).ok
    report = summarise({'x': [GOOD, Run(**values)]})
    assert report['faults']['x']['ok'] is False
    assert report['faults']['x']['runs_ok'] == 1
    assert report['ok'] == 0


def test_summary_of_times():
    slow = Run('PEER_DEAD', 300.0, None, None, 0, True, True, True)
    report = summarise({'x': [GOOD, slow]})
    assert report['faults']['x']['detection_ms'] == {'p50': 200.0, 'max': 300.0}
    assert report['faults']['x']['standstill_ms'] == {'p50': 200.0, 'max': 200.0}
    assert report['detection_to_stop_ms_p99'] == 5.0


def test_quantiles():
    assert quantiles([]) is None
    assert quantiles([1.0, 3.0]) == {'p50': 2.0, 'p99': 2.98, 'max': 3.0, 'n': 2}
