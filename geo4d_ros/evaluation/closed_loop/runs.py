"""One closed-loop episode from scene to verdict, in plain values that cross process borders."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo4d_ros.errors import SimulationError
from geo4d_ros.evaluation.closed_loop.failure_causes import CycleRow, cause_of

if TYPE_CHECKING:
    from geo4d_ros.evaluation.closed_loop.episode import Cycle


@dataclass(frozen=True)
class EpisodeOptions:
    """What is the same for all episodes. checkpoint: what `open_generator` takes, None for the
    oracle; films: folder for failures, rrd: for Rerun recordings of all, None for none."""

    checkpoint: str | None
    readout: str = 'fused'
    tracker: str = 'model'
    cameras: str = 'held-out'
    noise: str = 'none'
    executed_poses: int = 5
    max_cycles: int = 16
    device: str = 'cpu'
    films: str | None = None
    rrd: str | None = None
    robot: str | None = None


@dataclass(frozen=True)
class EpisodeReport:
    """One episode in plain values; cause is None for a success. stages: name -> seconds of each call."""

    task: str
    seed: int
    success: bool
    reason: str
    cause: str | None
    cycles: list[CycleRow]
    simulated_s: float
    film: str | None = None
    stages: dict[str, list[float]] = field(default_factory=dict)


@lru_cache(maxsize=1)
def loop_parts(options: EpisodeOptions) -> tuple[Any, Any, Any]:
    """Generator (None for the oracle), tracker and robot of this process."""
    from geo4d_ros.robots.gripper import gripper_of
    from geo4d_ros.robots.kinematics import RobotModel
    from geo4d_ros.robots.registry import load_robot
    from geo4d_ros.tracking.factory import create_tracker

    robot, generator = load_robot(options.robot), None
    if options.checkpoint is not None:
        from geo4d_ros.generation.loading import open_generator, read_by

        generator = read_by(open_generator(options.checkpoint, options.device), options.readout)
    tracker = create_tracker(options.tracker, readout=options.readout, gripper=gripper_of(robot))
    return generator, tracker, RobotModel.of(robot)


def run_episode(options: EpisodeOptions, task: str, seed: int) -> EpisodeReport:
    """One episode from scene to verdict. A seed without a scene counts as a failure named `simulation`."""
    from geo4d_ros.evaluation.closed_loop.cell_rig import CellRig, episode_cameras
    from geo4d_ros.evaluation.closed_loop.episode import LoopSetup, run_loop
    from geo4d_ros.evaluation.closed_loop.failure_analysis import judge_cycles
    from geo4d_ros.evaluation.closed_loop.oracle import OracleGenerator
    from geo4d_ros.loop.machine import LoopConfig
    from geo4d_ros.motion.limits import MotionLimits
    from geo4d_ros.robots.registry import load_robot
    from geo4d_ros.simulation.cell import make_cell

    generator, tracker, model = loop_parts(options)
    robot = load_robot(options.robot)
    try:
        cell = make_cell(task, seed, robot=robot)
    except SimulationError as error:
        return EpisodeReport(task, seed, False, str(error), 'simulation', [], 0.0)
    with CellRig(cell.model, episode_cameras(seed, options.cameras), options.noise, seed) as rig:
        generator = generator or OracleGenerator(cell, rig)
        config = LoopConfig(dry_run=False, auto=True, recover=True, max_cycles=options.max_cycles)
        setup = LoopSetup(generator, tracker, model, MotionLimits(stroke=robot.gripper.stroke), config,
                          executed_poses=options.executed_poses, seed=seed)
        result = run_loop(cell, rig, setup, film=options.films is not None)
        _write_scene(options, task, seed, rig.cameras[0].T_base_camera, result)
        if result.success:
            return EpisodeReport(task, seed, True, result.reason, None, _plain(result.cycles), result.simulated_s,
                                 None, result.stages)
        records = judge_cycles(cell, rig, result.cycles, options.executed_poses, generator.frames, generator.dt)
    cause = cause_of(records)
    film = _write_film(options, task, seed, cause, result)
    return EpisodeReport(task, seed, False, result.reason, cause, [r.to_json() for r in records],
                         result.simulated_s, film, result.stages)


def _plain(cycles: list[Cycle]) -> list[CycleRow]:
    return [{'reason': c.reason, 'closed': c.closed, 'missed': c.missed, 'retreated': c.retreated} for c in cycles]


def _write_scene(options: EpisodeOptions, task: str, seed: int, T_base_ref: Any, result: Any) -> None:
    """Every cycle's prediction, plan and verdict as <task>-<seed>.rrd; nothing without a folder for it."""
    if options.rrd is None:
        return
    from geo4d_ros.evaluation.rerun_scene import RerunScene

    with RerunScene(Path(options.rrd) / f'{task}-{seed}.rrd') as scene:
        for number, cycle in enumerate(result.cycles):
            if cycle.video is not None:
                scene.prediction(number, cycle.video)
            if cycle.plan is not None:
                scene.plan(number, cycle.plan, T_base_ref)
            scene.verdict(number, cycle.reason or 'executed', not cycle.reason)


def _write_film(options: EpisodeOptions, task: str, seed: int, cause: str, result: Any) -> str | None:
    """The failure as an mp4; None without a folder for it or without any motion."""
    from geo4d_ros.evaluation.closed_loop.episode import FILM_PERIOD
    from geo4d_ros.evaluation.films import film_frame, predicted_views
    from geo4d_ros.evaluation.movies import write_mp4

    if options.films is None or not result.film:
        return None
    frames = []
    for real, index, progress in result.film:
        video = result.cycles[index].video if index >= 0 else None
        predicted = predicted_views(video, progress, options.executed_poses, real)
        frames.append(film_frame(list(real), predicted, f'{task} {seed}  cycle {index + 1}  failed: {cause}'))
    path = Path(options.films) / f'{task}-{seed}-{cause}.mp4'
    write_mp4(path, frames, fps=2 / FILM_PERIOD)
    return str(path)
