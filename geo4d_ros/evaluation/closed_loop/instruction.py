"""Closed-loop episodes in which an instruction decides, or in which there is nothing to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from geo4d_ros.errors import SimulationError
from geo4d_ros.evaluation.closed_loop.runs import EpisodeOptions, loop_parts

SCENES = ('mixed', 'idle')
TOUCHED_M = 0.03  # an object that has moved farther was handled
NO_WORK = ('TASK_DONE', 'NOTHING_TO_DO')  # reasons by which a loop ends because it sees nothing (more) to do


@dataclass(frozen=True)
class InstructionReport:
    """One episode. scenes: mixed or idle; target: present, absent or done; moved [m]: every task's object;
    ended: the reason; wrong: another task's object was handled; closed: how often the gripper was closed.
    verdict: the figures of the first prediction."""

    task: str
    seed: int
    scenes: str
    target: str
    others: tuple[str, ...]
    instruction: str
    success: bool
    wrong: bool
    ended: str
    closed: int
    cycles: int
    moved: dict[str, float] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def run_instructed(options: EpisodeOptions, task: str, seed: int, scenes: str) -> InstructionReport | str:
    """One episode of a scene of several tasks (mixed) or without work (idle), told what to do in words that were never
    trained on; one line instead when the simulator has no such scene.

    Success in a mixed scene: the instructed object is at its goal and no other was handled. In an idle one: the loop
    ended by saying so and nothing was handled.
    """
    from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras
    from geo4d_ros.evaluation.closed_loop.episode import LoopSetup, run_loop
    from geo4d_ros.evaluation.closed_loop.oracle import OracleGenerator
    from geo4d_ros.loop.machine import LoopConfig
    from geo4d_ros.loop.verdict import figures
    from geo4d_ros.simulation.cell import Cell

    generator, tracker, robot = loop_parts(options)
    arrangement, instruction = scene_of(scenes, task, seed)
    try:
        cell = Cell(task, seed, arrangement=arrangement)
    except SimulationError as error:
        return f'{task} seed {seed}: {error}'
    with CellRig(cell.model, episode_cameras(seed, options.cameras), options.noise, seed) as rig:
        config = LoopConfig(dry_run=False, auto=True, recover=True, max_cycles=options.max_cycles)
        setup = LoopSetup(generator or OracleGenerator(cell, rig), tracker, robot, config=config,
                          executed_poses=options.executed_poses, seed=seed, instruction=instruction,
                          until_success=scenes == 'mixed')
        result = run_loop(cell, rig, setup)
    moved = cell.moved_objects()
    wrong = any(distance > TOUCHED_M for name, distance in moved.items() if name != task)
    closed = sum(cycle.closed for cycle in result.cycles)
    if scenes == 'mixed':
        success = result.success and not wrong
    else:
        success = result.reason in NO_WORK and not closed and max(moved.values()) <= TOUCHED_M
    first = next((figures(cycle.video) for cycle in result.cycles if cycle.video is not None), {})
    return InstructionReport(task, seed, scenes, arrangement.target, (*arrangement.others, *arrangement.bystanders),
                             instruction, success, wrong, result.reason, closed, len(result.cycles), moved, first)


def scene_of(scenes: str, task: str, seed: int) -> tuple[Any, str]:
    """Arrangement and instruction (one of the held-out wordings) of an evaluation episode."""
    import numpy as np

    from geo4d_ros.simulation.tasks.arrangement import draw_arrangement, instruction_of

    rng = np.random.default_rng([seed, sum(task.encode()), 0x1257])
    return draw_arrangement(scenes, task, seed), instruction_of(task, 'held-out', rng)


__all__ = ['NO_WORK', 'SCENES', 'InstructionReport', 'run_instructed', 'scene_of']
