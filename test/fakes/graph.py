"""The nodes of the loop as processes, with the fake prediction in place of the model."""

from __future__ import annotations

from pathlib import Path

from geo4d_ros.ros.graph.process_group import ProcessGroup
from geo4d_ros.ros.serve.environment import free_domain_id, loopback_environment

FAKES = Path(__file__).resolve().parent
SIM = {'use_sim_time': True}
# Machines that run tests are busy: the watchdogs of a real cell would bark at their scheduler.
PATIENT = {'camera_silence': 20.0, 'joint_state_silence': 5.0, 'execution_slack': 20.0, 'pair_age': 5.0,
           'joint_state_age': 1.0, 'future_tolerance': 0.2,
           'feedback_silence': 10.0, 'answer_seconds': 10.0, 'peer_silence': 10.0}


def new_group(log_directory: Path) -> tuple[ProcessGroup, int]:
    """An empty group in a domain of its own, and the domain's id."""
    domain_id = free_domain_id()
    environment = loopback_environment(domain_id) | {'OMP_NUM_THREADS': '1', 'MUJOCO_GL': 'egl'}
    return ProcessGroup(environment, log_directory), domain_id


def start_prediction(group: ProcessGroup, **parameters: object) -> None:
    """The real generator and tracker nodes around fakes, in one process."""
    group.start_node('prediction', {**SIM, 'max_age': 5.0, 'observation_timeout': 20.0, **parameters},
                     command=[str(FAKES / 'prediction.py')])


def start_executor(group: ProcessGroup, **parameters: object) -> None:
    """The real executor, told to move without asking."""
    group.start_node('plan_executor', {**SIM, 'dry_run': False, 'auto': True, **PATIENT, **parameters})


def start_loop(group: ProcessGroup, **executor: object) -> None:
    """Cell, prediction and executor."""
    group.start_node('simulated_cell', {'camera_rate': 4.0})
    start_prediction(group)
    start_executor(group, **executor)


__all__ = ['FAKES', 'PATIENT', 'SIM', 'new_group', 'start_executor', 'start_loop', 'start_prediction']
