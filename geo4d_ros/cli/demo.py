"""`geo4d demo`: the real nodes as processes over DDS on loopback, one held-out scene, a report at the end."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geo4d_ros.cli.common import (
    add_generator_argument,
    add_robot_argument,
    check_report_place,
    checked_tasks,
    checkpoint_directory,
    reported_path,
    revision,
    weights_sha256,
)
from geo4d_ros.errors import InvalidInputError, require

if TYPE_CHECKING:
    from geo4d_ros.reports.demo import DemoSummary

CAMERAS = ('/camera1/camera1', '/camera2/camera2')
SEED = 500_002
START_SECONDS, END_SECONDS = 240.0, 20.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--task', default='apple', metavar='T', help='cereal, spatula or apple (default apple)')
    add_robot_argument(parser)
    parser.add_argument('--seed', type=int, default=SEED, metavar='S',
                        help=f'scene and cameras, of the held-out ones from 500000 on (default {SEED})')
    parser.add_argument('--checkpoint', metavar='P',
                        help='model directory or the name of a shipped one (default: that of the robot)')
    add_generator_argument(parser)
    parser.add_argument('--readout', choices=('fused', 'video', 'state'), default='fused', help='default fused')
    parser.add_argument('--max-cycles', type=int, default=12, metavar='C', help='default 12')
    parser.add_argument('--max-seconds', type=float, default=180.0, metavar='S', help='of the loop (default 180)')
    parser.add_argument('--rrd', type=Path, metavar='FILE', help='also write the predictions as a Rerun recording')
    parser.add_argument('--out', type=Path, default=Path('outputs/demo'), metavar='DIR', help='default outputs/demo')


def run(args: argparse.Namespace) -> int:
    """Start, watch, stop, report. 0: the loop ran without a fault (whether or not the task succeeded)."""
    from geo4d_ros.robots.registry import load_robot

    checked_tasks([args.task])
    load_robot(args.robot).prepare()
    require(args.seed >= 0 and args.max_cycles >= 1 and args.max_seconds > 0,
            '--seed should not be negative, --max-cycles and --max-seconds positive', InvalidInputError)
    if args.rrd:
        from geo4d_ros.evaluation.rerun_scene import library

        library()
    generator = args.generator or str(checkpoint_directory(args.checkpoint, args.robot).resolve())
    digest = weights_sha256(generator)
    folder = args.out / time.strftime('%Y%m%d-%H%M%S')
    check_report_place(None, folder)
    # rclpy of this process too reads the variables when it starts.
    from geo4d_ros.ros.serve.environment import loopback_environment

    os.environ.update(loopback_environment())
    from geo4d_ros.ros.graph.demo_graph import DemoFault
    from geo4d_ros.ros.graph.process_group import ProcessDied, end_on_signals

    end_on_signals()
    try:
        outcome = _drive(args, generator, folder)
    except (DemoFault, ProcessDied) as error:
        print(f'geo4d demo: {error}', file=sys.stderr)
        return 3
    summary: DemoSummary = {'task': args.task, 'robot': args.robot, 'seed': args.seed, 'success': outcome.success,
               'cycles': outcome.cycles,
               'fault': outcome.fault, 'reason': outcome.reason, 'stages_ms': outcome.stages_ms,
               'readout': args.readout, 'cameras': 'held-out', 'checkpoint': reported_path(generator),
               'model_sha256': digest, 'revision': revision(), 'processes': outcome.processes,
               'wall_s': round(outcome.seconds, 1)}
    from geo4d_ros.reports.demo import write_demo, write_rrd

    write_demo(folder, summary, outcome.pictures, outcome.predictions, outcome.spans, outcome.reasons)
    if args.rrd:
        write_rrd(args.rrd, outcome.predictions, outcome.reasons)
    _point_latest(args.out, folder)
    verdict = 'the task succeeded' if outcome.success else 'the task did not succeed'
    ended = f'fault {outcome.fault}' if outcome.fault else f'no fault ({outcome.reason})'
    print(f'{args.task}, seed {args.seed}: {verdict} after {outcome.cycles} cycles, {ended}; {folder / "report.html"}')
    return 3 if outcome.fault else 0


def _drive(args: argparse.Namespace, generator: str, folder: Path) -> Any:
    """Run the graph; its processes are gone when this returns, however it returns."""
    from geo4d_ros.ros.graph.demo_graph import DemoGraph, DemoOptions

    options = DemoOptions(args.task, args.seed, generator, args.readout, args.max_cycles,
                          args.max_seconds, folder, CAMERAS, args.robot)
    with DemoGraph(options, _Line()) as graph:
        graph.start(START_SECONDS)
        graph.follow()
        return graph.outcome(END_SECONDS)


class _Line:
    """One live line on stderr; plain lines where stderr is no terminal."""

    def __init__(self) -> None:
        self._live, self._last = sys.stderr.isatty(), ''
        self._start = time.monotonic()

    def __call__(self, text: str) -> None:
        """Show the text with the elapsed time; a file only gets what changed."""
        if text == self._last and not self._live:
            return
        self._last = text
        line = f'{time.monotonic() - self._start:6.1f} s  {text}'
        print(f'\r\x1b[K{line}' if self._live else line, end='' if self._live else '\n', file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the live line."""
        if self._live and self._last:
            print(file=sys.stderr)


def _point_latest(out: Path, folder: Path) -> None:
    """`latest` -> this run, replaced in one step."""
    temporary = out / f'.latest.{os.getpid()}'
    temporary.symlink_to(folder.name)
    os.replace(temporary, out / 'latest')
