"""config/sros2/ allows each node exactly what it opens in the graph; GEO4D_WRITE_POLICIES=1 writes the files anew."""

import os
from pathlib import Path

import pytest
from fakes.graph import new_group, start_loop

from geo4d_ros.ros.graph.policies import PROCESSES, access, policy, read_policy
from geo4d_ros.ros.graph.probe import LoopProbe

FOLDER = Path(__file__).resolve().parents[2] / 'config' / 'sros2'
PATIENCE = 90.0


@pytest.fixture(scope='module')
def graph(tmp_path_factory):
    group, domain_id = new_group(tmp_path_factory.mktemp('logs'))
    os.environ.update({k: v for k, v in group.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
    with group:
        start_loop(group)
        with LoopProbe(domain_id) as probe:
            assert probe.wait_for(lambda: probe.predict(PATIENCE)[0], PATIENCE)
            wanted = {node for nodes in PROCESSES.values() for node in nodes}
            assert probe.wait_for(lambda: wanted <= set(probe.node.get_node_names()), PATIENCE), \
                wanted - set(probe.node.get_node_names())
            probe.spin(2.0)
            yield {process: {node: access(probe.node, node) for node in nodes} for process, nodes in PROCESSES.items()}


@pytest.mark.parametrize('process', PROCESSES)
def test_a_policy_allows_what_its_nodes_open_and_nothing_else(graph, process):
    path = FOLDER / f'{process}.xml'
    found = {node: {key: names for key, names in kinds.items() if names} for node, kinds in graph[process].items()}
    if os.environ.get('GEO4D_WRITE_POLICIES'):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(policy(process, found))
    assert read_policy(path.read_text()) == found


def test_only_the_tracker_may_publish_plans_and_only_the_executor_moves_the_arm(graph):
    publishers = {node for nodes in graph.values() for node, kinds in nodes.items()
                  if '/geo4d/plan' in kinds['topics', 'publish']}
    movers = {node for nodes in graph.values() for node, kinds in nodes.items() if kinds['actions', 'call']}
    assert publishers == {'gripper_tracker'} and movers == {'plan_executor'}
