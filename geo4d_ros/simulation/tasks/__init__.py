"""The three tasks of the simulated cell, after those of the paper (arXiv 2507.01099, section 4)."""

from __future__ import annotations

from geo4d_ros.errors import SimulationError
from geo4d_ros.simulation.tasks.apple import AppleTask
from geo4d_ros.simulation.tasks.base import Layout, Task
from geo4d_ros.simulation.tasks.cereal import CerealTask
from geo4d_ros.simulation.tasks.spatula import SpatulaTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (CerealTask, SpatulaTask, AppleTask)}


def task_class(name: str) -> type[Task]:
    """The class of a task by name; SimulationError lists the known ones."""
    if name not in TASKS:
        raise SimulationError(f'unknown task {name!r}; pick one of {", ".join(TASKS)}')
    return TASKS[name]


__all__ = ['TASKS', 'Layout', 'Task', 'task_class']
