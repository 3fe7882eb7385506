"""Two cells on one graph, each in its namespace: neither hears, moves or ends the other."""

import pytest
from fakes.graph import FAKES, PATIENT, SIM, new_group

from geo4d_ros.ros.graph.launch_arguments import cell_remappings
from geo4d_ros.ros.graph.probe import LoopProbe

pytestmark = pytest.mark.slow
CELLS = ('left', 'right')
PATIENCE = 120.0
# What a cell may share with others: log, parameter events, diagnostics (whose entries carry the node's full name).
SHARED = {'/rosout', '/parameter_events', '/diagnostics'}


def start_cell(group, namespace):
    """Cell, prediction around the fake model, and executor, named and remapped as the launch files do it."""
    place = {'__ns': f'/{namespace}', **dict(cell_remappings(namespace, simulated=True))}
    nodes = {'simulated_cell': ({'camera_rate': 2.0}, ('-m', 'geo4d_ros.nodes.simulated_cell')),
             'prediction': ({**SIM, 'max_age': 10.0, 'observation_timeout': 30.0}, (str(FAKES / 'prediction.py'),)),
             'plan_executor': ({**SIM, **PATIENT, 'dry_run': False, 'auto': True, 'max_cycles': 1},
                               ('-m', 'geo4d_ros.nodes.plan_executor'))}
    for name, (parameters, command) in nodes.items():
        group.start_node(f'{namespace}_{name}', parameters, place, command)


@pytest.fixture(scope='module')
def probes(tmp_path_factory):
    group, domain_id = new_group(tmp_path_factory.mktemp('logs'))
    with group:
        for cell in CELLS:
            start_cell(group, cell)
        with LoopProbe(domain_id, namespace=CELLS[0]) as left, LoopProbe(domain_id, namespace=CELLS[1]) as right:
            for probe in (left, right):
                assert probe.wait_for(lambda probe=probe: probe.predict(PATIENCE)[0], PATIENCE)
            yield left, right
            group.check()


def test_one_runs_its_loop_while_the_other_stands_still(probes):
    left, right = probes
    right.spin(1.0)
    before = dict(right.joints)
    left.begin('geo4d/step', PATIENCE)
    assert left.wait_for(lambda: left.speed > 0.01, PATIENCE)  # its own controller moves its own arm
    assert left.wait_for_phase('IDLE', 'DONE', seconds=PATIENCE)
    right.spin(1.0)
    assert right.joints == pytest.approx(before, abs=1e-3)
    assert {values['state'] for _, values in right.states} == {'IDLE'}


def test_a_stop_reaches_its_own_cell_only(probes):
    left, right = probes
    for probe in probes:
        probe.begin('geo4d/step', PATIENCE)
    assert left.call('geo4d/stop')[0]
    assert left.wait_for(lambda: left.state.get('reason') == 'OPERATOR_STOP', 20.0)
    assert right.wait_for_phase('IDLE', 'DONE', seconds=PATIENCE)
    assert 'OPERATOR_STOP' not in {values.get('reason') for _, values in right.states}


def test_no_name_of_a_cell_lies_outside_its_namespace(probes):
    names = {name for name, _ in probes[0].node.get_topic_names_and_types()}
    names |= {name for name, _ in probes[0].node.get_service_names_and_types()}
    assert {name for name in names if not name.startswith(('/left/', '/right/'))} <= SHARED
    assert {'/left/geo4d/predict', '/right/geo4d/predict', '/left/geo4d/stop', '/right/geo4d/stop'} <= names
