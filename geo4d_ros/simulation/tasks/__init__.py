"""The tasks of the simulated cell by name: the paper's (arXiv 2507.01099, section 4), longer ones, other packages'.

A package adds a task by an entry point `geo4d_ros.tasks` that names its class (docs/tutorials/own_task.md).
"""

from __future__ import annotations

from geo4d_ros.errors import SimulationError
from geo4d_ros.registry import Registry
from geo4d_ros.simulation.tasks.apple import AppleTask
from geo4d_ros.simulation.tasks.base import Layout, Task
from geo4d_ros.simulation.tasks.cereal import CerealTask
from geo4d_ros.simulation.tasks.spatula import SpatulaTask
from geo4d_ros.simulation.tasks.stack import StackTask

# What is meant where no task is named: the shipped models know these.
BUILT_IN: dict[str, type[Task]] = {task.name: task for task in (CerealTask, SpatulaTask, AppleTask)}
LONGER: dict[str, type[Task]] = {StackTask.name: StackTask}
TASKS: Registry[type[Task]] = Registry('geo4d_ros.tasks', 'task', lambda: BUILT_IN | LONGER, SimulationError)


def task_class(name: str) -> type[Task]:
    """The class of a task by name; SimulationError lists the known ones."""
    return TASKS.get(name)


__all__ = ['BUILT_IN', 'TASKS', 'Layout', 'Task', 'task_class']
