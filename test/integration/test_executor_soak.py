"""Slow: many cycles without growth, many starts and ends without a bad exit, the loop through the fake MoveIt."""

import itertools
import os
import signal
import statistics

import psutil
import pytest
from fakes.graph import FAKES, SIM, new_group, start_executor, start_loop, start_prediction

from geo4d_ros.ros.graph.probe import LoopProbe

pytestmark = pytest.mark.slow
CYCLES = int(os.environ.get('GEO4D_SOAK_CYCLES', '200'))
RESTARTS = int(os.environ.get('GEO4D_RESTARTS', '50'))
PATIENCE = 60.0


@pytest.fixture
def group(tmp_path):
    made, domain_id = new_group(tmp_path)
    os.environ.update({k: v for k, v in made.environment.items() if k.startswith(('ROS_', 'RMW_', 'FAST'))})
    with made, LoopProbe(domain_id) as probe:
        yield made, probe


def usage(group, probe, cycles):
    """Memory [MiB], threads and open files per process: medians over so many cycles.

    The heap of a process that handles images breathes by some MiB from one moment to the next.
    """
    samples = {name: [] for name in group.pids}
    until = probe.state.get('cycles', 0) + cycles
    while probe.state.get('cycles', 0) < until and probe.state.get('state') not in ('DONE', 'FAULT'):
        for name, pid in group.pids.items():
            process = psutil.Process(pid)
            samples[name].append((process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()))
        probe.spin(0.3)
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in samples.items()}


@pytest.mark.timeout(3600)
def test_many_cycles_without_growth(group):
    """After half of the cycles nothing grows by more than 1 % (and, for small counts, one unit or 1 MiB).

    Not earlier: thread pools fill up to their size only as requests happen to overlap.
    """
    processes, probe = group
    start_loop(processes, max_cycles=CYCLES, max_seconds=3500.0)
    probe.begin(seconds=PATIENCE)
    window = CYCLES // 8
    assert probe.wait_for(lambda: probe.state.get('cycles', 0) > CYCLES // 2, 20.0 * CYCLES)
    before = usage(processes, probe, window)
    assert probe.wait_for(lambda: probe.state.get('cycles', 0) > CYCLES - window, 20.0 * CYCLES)
    after = usage(processes, probe, window)
    assert probe.wait_for_phase('DONE', 'FAULT', seconds=20.0 * CYCLES), probe.state
    assert probe.state['reason'] == 'CYCLE_LIMIT', probe.state
    for name, values in before.items():
        for then, now in zip(values, after[name], strict=True):
            assert now <= 1.01 * then + 1, (name, before[name], after[name])
    assert set(processes.close().values()) == {0}
    for log in processes.log_directory.glob('*.log'):
        assert 'Traceback' not in log.read_text(), log


@pytest.mark.timeout(3600)
@pytest.mark.parametrize('name', ['simulated_cell', 'plan_executor', 'prediction'])
def test_starts_and_ends(group, name):
    """Exit code 0 within the 5 s of ProcessGroup.stop, on either signal, some time after the node is up."""
    processes, probe = group
    for i, number in zip(range(RESTARTS), itertools.cycle((signal.SIGINT, signal.SIGTERM))):
        if name == 'prediction':
            start_prediction(processes)
            node = 'video_generator'
        else:
            processes.start_node(name, SIM if name == 'plan_executor' else {})
            node = name
        assert probe.wait_for(lambda node=node: node in probe.node.get_node_names(), PATIENCE)
        probe.spin(0.5 + 0.1 * (i % 10))
        assert processes.stop(name, number) == 0, (i, number, processes.last_line(name))
        assert probe.wait_for(lambda node=node: node not in probe.node.get_node_names(), PATIENCE)


@pytest.mark.timeout(600)
def test_the_loop_through_moveit(group):
    processes, probe = group
    processes.start_node('simulated_cell', {'camera_rate': 4.0})
    start_prediction(processes)
    processes.start_node('move_group', SIM, command=[str(FAKES / 'moveit.py')])
    start_executor(processes, motion='moveit')
    probe.begin('/geo4d/step', PATIENCE)
    assert probe.wait_for_phase('DONE', 'FAULT', seconds=PATIENCE)
    assert probe.state['reason'] == 'STEP_DONE', probe.state
    assert probe.set_parameter('/move_group', 'fault', 'partial')
    probe.begin('/geo4d/step', PATIENCE)
    assert probe.wait_for(lambda: probe.state['reason'] == 'PATH_INCOMPLETE', PATIENCE), probe.state
