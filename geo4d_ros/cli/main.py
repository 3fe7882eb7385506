"""Entry point of `geo4d`: finds the command, parses its arguments, turns errors into exit codes."""

from __future__ import annotations

import argparse
import importlib
import logging
import math
import sys
from typing import NoReturn

from geo4d_ros import __version__
from geo4d_ros.errors import Geo4dError, InvalidInputError, require

# Command words -> (module with add_arguments(parser) and run(args) -> int | None, one-line help).
COMMANDS: dict[str, tuple[str, str]] = {
    'demo': ('demo', 'run the closed loop in the simulated cell and write a report'),
    'doctor': ('doctor', 'check this machine and say how to mend what is missing'),
    'robot check': ('robot', 'check the description of a robot and draw it'),
    'collect': ('collect', 'record expert demonstrations as zarr episodes'),
    'train': ('train.generator', 'train a generator from a config'),
    'train segmenter': ('train.segmenter', 'train the gripper segmenter'),
    'train opening': ('train.opening', "train the network that reads the gripper's opening"),
    'train judge': ('train.judge', 'fit what tells done and unfamiliar scenes, beside a trained two-view generator'),
    'predict': ('predict', 'predict a 4D video from one observation: a file, the simulated cell, a recording, cameras'),
    'observation make': ('observation.make', 'one look of cell, recording or cameras as a file for predict'),
    'serve': ('serve', 'serve a generator to cells on other machines'),
    'cameras list': ('cameras.list', 'the RealSense cameras of this machine'),
    'cameras show': ('cameras.show', 'what cameras deliver, in numbers and one picture'),
    'cameras record': ('cameras.record', 'record cameras as an RGB-D folder'),
    'record': ('record', 'record a demonstration of a real cell as rosbag2, checked while it runs'),
    'calibrate': ('calibrate', 'where the cameras stand, from a board in the gripper'),
    'import': ('import_.recording', 'own recordings (bag, folder, LeRobot dataset) as episodes to train on'),
    'view': ('view', 'see cameras, observations and predictions in 3D (Rerun)'),
    'import svd': ('import_.svd', 'start a geo4d-svd checkpoint from Stable Video Diffusion'),
    'import 4dgen': ('import_.released', "convert the authors' released checkpoint"),
    'push': ('hub.push', 'upload a checkpoint to a model hub'),
    'pull': ('hub.pull', 'download a checkpoint from a model hub, checked'),
    'data check': ('data.check', 'what a directory of episodes holds and what is wrong with it'),
    'export bag': ('export.bag', 'write episodes as rosbag2 recordings (MCAP or sqlite3)'),
    'export folder': ('export.folder', 'write episodes as folders of pictures'),
    'export lerobot': ('export.lerobot', 'write episodes as a LeRobot dataset'),
    'replay': ('replay', 'replay a recorded run and compare its decisions'),
    'evaluate expert': ('evaluate.expert', 'success rate of the scripted expert'),
    'evaluate closed-loop': ('evaluate.closed_loop', 'success rate of the whole loop in simulation'),
    'evaluate instruction': ('evaluate.instruction', 'several objects, told what to do; scenes with nothing to do'),
    'evaluate video': ('evaluate.video', 'image, depth, consistency and gripper metrics of a generator'),
    'evaluate tracker': ('evaluate.tracker', 'pose, opening and lost-detection accuracy of a tracker'),
    'evaluate fidelity': ('evaluate.fidelity', "differences to the released model's conventions, measured"),
    'evaluate distillation': ('evaluate.distillation', 'few-step students against their teacher'),
    'evaluate safety': ('evaluate.safety', 'random and adversarial plans against the safety gates'),
    'evaluate faults': ('evaluate.faults', 'inject faults into the running nodes'),
    'benchmark generator': ('benchmark.generator', 'time the generator against the released algorithm'),
    'benchmark loader': ('benchmark.loader', 'clips per second of the training data, from pixels and from the cache'),
    'benchmark training-cost': ('benchmark.training_cost', 'memory, hours and disk of training at full size, computed'),
    'benchmark scaling': ('benchmark.scaling', 'collecting and evaluating on one worker and on several'),
    'benchmark openvino': ('benchmark.openvino', 'time the shipped model in torch and in OpenVINO, side by side'),
    'benchmark serve': ('benchmark.serve', 'bytes, latency and robustness of `geo4d serve`'),
    'benchmark loop': ('benchmark.loop', 'latencies, CPU and image rates of the running nodes'),
    'benchmark stop': ('benchmark.stop', 'from /geo4d/stop to the cancel at the controller, alone or under load'),
}


# What a command counts: none of it would make a run that looks at nothing, and passes.
COUNTED = ('cameras', 'cases', 'cycles', 'demos', 'episodes', 'frames', 'jobs', 'predictions', 'repeats', 'runs',
           'steps', 'threads', 'views', 'windows')


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, where argparse prints its usage before."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'{self.prog}: {message}; see {self.prog} --help\n')


def check_numbers(args: argparse.Namespace) -> None:
    """InvalidInputError for a count below 1, a negative seed or time, or a number that is not finite."""
    for name, value in vars(args).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        option = f'--{name.replace("_", "-")}'
        require(math.isfinite(value), f'{option} should be a finite number but is {value}', InvalidInputError)
        if name in COUNTED:
            require(value >= 1, f'{option} {value}: a run of none proves nothing; give at least 1', InvalidInputError)
        elif name in ('minutes', 'seconds'):
            require(value > 0, f'{option} {value} should be positive', InvalidInputError)
        elif name in ('seed', 'seed_start'):
            require(0 <= value < 2**63, f'{option} {value} should not be negative', InvalidInputError)


def split_command(argv: list[str]) -> tuple[str | None, list[str]]:
    """Longest known command at the start of argv, and the rest."""
    for words in (2, 1):
        name = ' '.join(argv[:words])
        if len(argv) >= words and name in COMMANDS:
            return name, argv[words:]
    return None, argv


def usage() -> str:
    """The text of `geo4d --help`."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:<{width}}  {text}' for name, (_, text) in COMMANDS.items()]
    return '\n'.join([f'geo4d {__version__}', 'usage: geo4d <command> [options]; geo4d <command> --help', '', *lines])


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 done, 2 bad input or usage, 3 a fault during the run."""
    argv = sys.argv[1:] if argv is None else argv
    if argv in (['--version'], ['-V']):
        print(__version__)
        return 0
    name, rest = split_command(argv)
    if name is None:
        asked_for_help = argv in (['--help'], ['-h'])
        print(usage(), file=sys.stdout if asked_for_help else sys.stderr)
        if argv and not asked_for_help:
            print(f'\ngeo4d: unknown command {" ".join(argv[:2])!r}; pick one of the above', file=sys.stderr)
        return 0 if asked_for_help else 2
    module_name, text = COMMANDS[name]
    logging.basicConfig(level=logging.WARNING, format='%(levelname)s %(name)s: %(message)s')
    module = importlib.import_module(f'geo4d_ros.cli.{module_name}')
    parser = _Parser(prog=f'geo4d {name}', description=text)
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    try:
        check_numbers(args)
        return int(module.run(args) or 0)
    except Geo4dError as error:
        print(f'geo4d {name}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception:
        logging.getLogger('geo4d').exception('geo4d %s failed', name)
        return 3


if __name__ == '__main__':
    sys.exit(main())
