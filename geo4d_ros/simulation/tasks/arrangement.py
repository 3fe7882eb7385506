"""What stands on the table: the instructed task's things, other tasks' things, and whether there is work left.

Scenes with the things of two tasks are the same whichever of the two is instructed: only the instruction decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geo4d_ros.errors import SimulationError, require
from geo4d_ros.simulation.tasks import BUILT_IN, TASKS, Task, task_class

SCENES = ('single', 'mixed', 'idle', 'varied')
TARGETS = ('present', 'absent', 'done')
_VARIED_SHARES = (('single', 0.35), ('mixed', 0.45), ('idle', 0.2))
_BYSTANDER_SHARE = 0.3  # of the mixed scenes, in which the third task's object stands about without its goal
_DRAWS, _TRIES = 4000, 60
Circle = tuple[float, float, float]  # x, y, radius [m]


@dataclass(frozen=True)
class Arrangement:
    """Whose things are on the table besides the instructed task's.

    others: tasks with object and goal; bystanders: tasks with their object (and what holds it) only.
    target: the instructed object is 'present' at its start, 'absent', or already at its goal ('done').
    """

    others: tuple[str, ...] = ()
    bystanders: tuple[str, ...] = ()
    target: str = 'present'

    def __post_init__(self) -> None:
        for name in (*self.others, *self.bystanders):
            task_class(name)
        require(self.target in TARGETS, f'target should be one of {TARGETS} but got {self.target!r}')
        names = (*self.others, *self.bystanders)
        require(len(set(names)) == len(names), f'a task may stand on the table once only but got {names}')


ALONE = Arrangement()


def draw_arrangement(scenes: str, task: str, seed: int) -> Arrangement:
    """The arrangement of a seed: `scenes` is one of SCENES; 'idle' leaves nothing to do, 'varied' draws the kind.

    Two tasks that are partners at a seed have the same mixed scene.
    """
    require(scenes in SCENES, f'scenes should be one of {SCENES} but got {scenes!r}')
    task_class(task)
    rng = np.random.default_rng([seed, sum(task.encode()), 0x5CE7E])
    kind = scenes
    if scenes == 'varied':
        kind = str(rng.choice([name for name, _ in _VARIED_SHARES], p=[share for _, share in _VARIED_SHARES]))
    if kind == 'single':
        return ALONE
    partners = task_class(task).partners
    if kind == 'idle':
        others = (partners[seed % len(partners)],) if rng.uniform() < 0.5 and partners else ()
        return Arrangement(others, (), str(rng.choice(['absent', 'done'])))
    if not partners and scenes == 'varied':
        return ALONE
    require(bool(partners), f'task {task!r} names no partners that fit on a table with it; use scenes "single"',
            SimulationError)
    partner = partners[seed % len(partners)]
    third = [name for name in BUILT_IN if name not in (task, partner)]
    with_third = np.random.default_rng([seed, 0xB75]).uniform() < _BYSTANDER_SHARE
    return Arrangement((partner,), tuple(third) if with_third else ())


def instruction_of(task: str, split: str, rng: np.random.Generator) -> str:
    """One way to ask for a task; those of the 'held-out' split are never in training data."""
    kind = task_class(task)
    return str(rng.choice(kind.unseen_instructions if split == 'held-out' else kind.instructions))


def draw_layouts(rng: np.random.Generator, names: list[str], bystanders: tuple[str, ...],
                 can_serve: Callable[[Task], bool]) -> dict[str, Task]:
    """One layout per task that `can_serve` allows, whose places on the table keep clear of each other.

    Of a bystander only the place of its object is kept clear, and nobody has to serve it. Raises SimulationError
    when they do not fit.
    """
    order = [name for name in TASKS if name in names]
    for _ in range(_DRAWS):
        placed: dict[str, Task] = {}
        taken: list[Circle] = []
        for name in (*order, *bystanders):
            found = _free_layout(rng, name, taken, name in bystanders)
            if found is None or (task_class(name).seldom_served and name in order and not can_serve(found)):
                break
            placed[name] = found
            taken += _circles(found, name in bystanders)
        if len(placed) == len(order) + len(bystanders) and all(
                can_serve(placed[n]) for n in order if not task_class(n).seldom_served):
            return placed
    raise SimulationError(f'the things of {", ".join((*names, *bystanders))} do not fit on the table')


def _free_layout(rng: np.random.Generator, name: str, taken: list[Circle], object_only: bool) -> Task | None:
    kind = task_class(name)
    for _ in range(_TRIES):
        candidate = kind(kind.sample(rng))
        if all(np.hypot(x - u, y - v) > r + s for x, y, r in _circles(candidate, object_only) for u, v, s in taken):
            return candidate
    return None


def _circles(task: Task, object_only: bool) -> list[Circle]:
    return list(task.footprint()[:1] if object_only else task.footprint())


__all__ = ['ALONE', 'SCENES', 'TARGETS', 'Arrangement', 'draw_arrangement', 'draw_layouts', 'instruction_of']
