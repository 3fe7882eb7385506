"""What the commands share: JSON reports with the git revision, and their confidence intervals."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from geo4d_ros.errors import ConfigurationError, InvalidInputError, require
from geo4d_ros.resources import revision

DEFAULT_CHECKPOINT = 'geo4d-sim-small'
INTERRUPTED = 130  # exit code of a run that ctrl-C ended, as shells have it


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """`--json F`: where the report object is written besides `outputs/`."""
    parser.add_argument('--json', type=Path, metavar='F', help='also write the report as JSON to this file')


def write_report(name: str, report: Mapping[str, object], extra: Path | None, out_dir: Path = Path('outputs')) -> None:
    """Write `report` (with the revision) to outputs/<name>.json and to `extra` when given."""
    text = json.dumps({'revision': revision(), **report}, indent=1, default=_plain) + '\n'
    for path in filter(None, (out_dir / f'{name}.json', extra)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise ConfigurationError(f'cannot write {path}: {error.strerror}; choose a writable place') from error


def _plain(value: Any) -> Any:
    if hasattr(value, 'tolist'):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f'{type(value).__name__} is not JSON')


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a success rate (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def add_robot_argument(parser: argparse.ArgumentParser) -> None:
    """`--robot NAME`: which arm stands in the simulated cell."""
    from geo4d_ros.robots.registry import DEFAULT

    parser.add_argument('--robot', default=DEFAULT, metavar='R',
                        help='name of a robot or its YAML file (default %(default)s)')


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """`--jobs N` and `--ray ADDRESS`: where the episodes are done."""
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, metavar='J',
                        help='worker processes (default: the cores)')
    parser.add_argument('--ray', metavar='ADDRESS', help='do the episodes on a Ray cluster: HOST:PORT, auto, or local '
                        'for one of --jobs workers (docs/how_to/scale_out.md)')


def gpus_of(device: str) -> float:
    """GPUs that a worker needs for the device of its generator."""
    return 1.0 if device.startswith('cuda') else 0.0


def checked_tasks(names: list[str] | None) -> list[str]:
    """The tasks asked for, the built-in ones by default; InvalidInputError names an unknown one."""
    from geo4d_ros.simulation.tasks import BUILT_IN, TASKS

    unknown = [name for name in names or () if name not in TASKS]
    require(not unknown, f'unknown task {", ".join(unknown)}; pick from {", ".join(TASKS)}', InvalidInputError)
    return list(dict.fromkeys(names or BUILT_IN))


def checkpoint_directory(path: Path | str | None, robot: str | None = None) -> Path:
    """The directory asked for, by default the weights that know the robot; ConfigurationError when there are none."""
    from geo4d_ros.resources import find_checkpoint
    from geo4d_ros.robots.registry import load_robot

    described = load_robot(robot)
    require(bool(path or described.checkpoint), f'no shipped model knows the robot {described.name}; train one '
            '(docs/tutorials/own_arm.md) and give --checkpoint', ConfigurationError)
    return find_checkpoint(str(path or described.checkpoint))


def reported_path(path: Path | str | None) -> str | None:
    """A path as reports name it: inside the checkout or share folder relative to it, since reports get published.
    The address of a remote generator stays as it is.
    """
    from geo4d_ros.resources import share_directory

    if path is None or '://' in str(path):
        return None if path is None else str(path)
    place, home = Path(path).resolve(), share_directory()
    return str(place.relative_to(home)) if place.is_relative_to(home) else str(path)


def weights_sha256(generator: Path | str, device: str = 'cpu') -> str:
    """`model_sha256` of a generator, opened once so that a bad one is refused before any work."""
    from geo4d_ros.generation.loading import model_sha256, open_generator

    open_generator(str(generator), device)
    return model_sha256(str(generator))


def add_generator_argument(parser: argparse.ArgumentParser) -> None:
    """`--generator remote://host:port`: predict there instead of here."""
    parser.add_argument('--generator', metavar='G', help='remote://host:port of a `geo4d serve`, in place of a '
                        'checkpoint in this process')


def check_report_place(json_path: Path | None, folder: Path | None = None) -> None:
    """Fail now rather than after the run when the report cannot be written."""
    for directory in (Path('outputs'), json_path and json_path.parent, folder):
        if directory is None:
            continue
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f'cannot write {directory}: {error.strerror}; choose a writable place') from error
        if not os.access(directory, os.W_OK):
            raise ConfigurationError(f'cannot write {directory}: permission denied; choose a writable place')
