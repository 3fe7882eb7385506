"""`geo4d benchmark loader`: clips per second up to latents, from pixels and from the latent cache."""

from __future__ import annotations

import argparse
from pathlib import Path

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run's data, how many clips and processes."""
    parser.add_argument('--config', type=Path, required=True, help='training config whose data and model are used')
    parser.add_argument('--clips', type=int, default=64, help='clips timed per way')
    parser.add_argument('--workers', type=int, default=2, help='processes that read data')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write the report, print the rates."""
    import yaml

    from geo4d_ros.bench.speed.loader import measure
    from geo4d_ros.errors import ConfigurationError
    from geo4d_ros.training.unet.config import parse_config

    try:
        values = yaml.safe_load(args.config.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(f'{args.config} cannot be read: {str(error).splitlines()[0]}') from error
    report = measure(parse_config(values), args.clips, args.workers)
    write_report('benchmark-loader', report, args.json)
    rates, processor = report['clips_per_s'], report['processor_ms_per_clip']
    print(f'clips/s: {rates["uncached"]:.1f} from pixels, {rates["cached"]:.1f} from the cache '
          f'({processor["uncached"]:.0f} and {processor["cached"]:.0f} ms of processor time a clip); '
          f'8 H100 need {report["needed_for_8_h100"]:.0f} (computed)')
    return 0
