"""`geo4d train --data DIR --start shipped`, or `--config X.yaml`, whose key `model` says which network is trained."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

from geo4d_ros.cli.common import INTERRUPTED, add_json_argument, write_report
from geo4d_ros.errors import ConfigurationError

TRAINERS = {'unet': 'geo4d_ros.training.unet', 'two_view': 'geo4d_ros.training.two_view',
            'scene_head': 'geo4d_ros.training.two_view.scene_fit',
            'motion_model': 'geo4d_ros.training.two_view.motion_fit',
            'inverse_dynamics': 'geo4d_ros.training.inverse_dynamics'}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The start, or the config, and single overrides of it."""
    parser.add_argument('--start', metavar='P', help='checkpoint to begin with: shipped (the model that knows the '
                        "robot of the data), a model's name or directory, none (default: shipped, or the config's)")
    parser.add_argument('--config', type=Path, metavar='F', help='YAML file, see config/train/ (default: the small '
                        'generator, set by how many demonstrations there are)')
    parser.add_argument('--data', metavar='DIR', help='directory of episodes (default outputs/data/train, or the '
                        "config's)")
    parser.add_argument('--output', metavar='DIR', help='directory of the run; an unfinished run there is resumed '
                        "(default outputs/train/ and the data's name, or the config's)")
    parser.add_argument('--minutes', type=float, metavar='M', help='how long to train')
    parser.add_argument('--set', nargs='*', default=[], metavar='KEY=VALUE',
                        help='override top-level keys, values in YAML, e.g. steps=100 batch=2')
    add_json_argument(parser)


def read_config(path: Path, overrides: list[str]) -> dict:
    """The YAML mapping with KEY=VALUE overrides applied."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except UnicodeDecodeError:
        raise ConfigurationError(f'{path} is not a text file; configs are in config/train/') from None
    except OSError as error:
        raise ConfigurationError(f'cannot read {path}: {error.strerror}; configs are in config/train/') from error
    except yaml.YAMLError as error:
        raise ConfigurationError(f'{path} is not YAML: {str(error).splitlines()[0]}') from error
    if not isinstance(values, dict):
        raise ConfigurationError(f'{path} should hold a mapping of keys, see config/train/')
    return overridden(values, overrides)


def overridden(values: dict, overrides: list[str]) -> dict:
    """`values` with KEY=VALUE overrides applied."""
    import yaml

    for item in overrides:
        key, equals, text = item.partition('=')
        if not equals:
            raise ConfigurationError(f'--set takes KEY=VALUE but got {item!r}')
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigurationError(f'--set {key}: {text!r} is not YAML') from error
    return values


def chosen_config(args: argparse.Namespace) -> dict:
    """The mapping that is trained by: of the file, else of the demonstrations; single options go before both."""
    from geo4d_ros.training.defaults import checkpoint_of, config_for

    options = {'data': args.data, 'output': args.output, 'minutes': args.minutes}
    given = {key: value for key, value in options.items() if value is not None}
    if args.config is not None:
        values = read_config(args.config, args.set) | given
        if args.start is not None:
            values['start'] = '' if args.start == 'none' else checkpoint_of(args.start)
        return values
    start = None if args.start == 'none' else args.start or 'shipped'
    values, said = config_for(args.data or 'outputs/data/train', start)
    print(f'{said}; --minutes, --start and --set change that')
    return overridden(values | given, args.set)


def run(args: argparse.Namespace) -> int:
    """Train, then write the closing figures."""
    values = chosen_config(args)
    model = values.get('model')
    if not isinstance(model, str) or model not in TRAINERS:
        raise ConfigurationError(f'{args.config}: model should be one of {", ".join(TRAINERS)} but is {model!r}')
    from geo4d_ros.training.budget import interruptible

    with interruptible() as asked:
        output = importlib.import_module(TRAINERS[model]).train(values)
    if int(os.environ.get('RANK', '0')) > 0:
        return 0  # of several processes, the first one reports
    summary = output / 'summary.json'
    report = json.loads(summary.read_text()) if summary.is_file() else {}
    write_report('train', {**report, 'output': str(output)}, args.json)
    if asked.is_set():
        again = 'trains anew' if model == 'inverse_dynamics' else 'goes on from there'
        print(f'interrupted: what was learnt so far is in {output}; the same command {again}')
        return INTERRUPTED
    best = output / 'best.json'
    if best.is_file():
        found = json.loads(best.read_text())
        print(f'best on held-out clips: step {found["step"]}, path {found["path_error_cm"]:.1f} cm off, {output}/best')
    print(f'trained model in {output}/model' if (output / 'model').is_dir() else f'trained model in {output}')
    return 0
