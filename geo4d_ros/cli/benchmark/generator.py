"""`geo4d benchmark generator`: the pipeline against a plain re-run of the released algorithm, in one process."""

from __future__ import annotations

import argparse

from geo4d_ros.cli.common import add_json_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Size, device and precision."""
    parser.add_argument('--preset', choices=('small', 'reduced-width', 'svd'), default='small')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32',
                        help='precision of the pipeline; the released algorithm runs in float32')
    parser.add_argument('--compile', action='store_true', help='torch.compile the denoiser')
    parser.add_argument('--repeats', type=int, default=3, help='rounds: predictions timed per setting')
    parser.add_argument('--threads', type=int, default=1, help='CPU threads; times are processor time of all of them')
    parser.add_argument('--no-flops', action='store_true', help='do not count floating-point operations')
    parser.add_argument('--switches', action='store_true',
                        help='also time each switch: guidance off, bfloat16, channels last, points only, fp8, '
                        'compiled, student (always on a GPU)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write the report, print a short table."""
    from geo4d_ros.bench.speed.generator import benchmark
    from geo4d_ros.bench.speed.switches import switches
    from geo4d_ros.errors import require
    from geo4d_ros.generation.loading import checked_device

    require(args.repeats >= 1, f'--repeats should be at least 1 but got {args.repeats}')
    require(args.threads >= 1, f'--threads should be at least 1 but got {args.threads}')
    checked_device(args.device)
    report = benchmark(
        args.preset, args.device, args.repeats, args.dtype, args.compile, not args.no_flops, args.threads
    )
    if args.switches or args.device != 'cpu':
        report['switches'] = switches(args.device, args.preset)
    write_report(f'benchmark-generator-{args.preset}', report, args.json)
    print(f'released algorithm, 25 steps: {report["released_ms"]["total"]["p50"] / 1e3:.2f} s ({report["clock"]})')
    for name, entry in report['consumers'].items():
        total = entry['stages_ms']['total']['p50'] / 1e3
        print(f'{name:26s} 25 steps {total:8.2f} s, {entry["speedup_25_steps"]:5.1f}x; 8 steps '
              f'{entry["speedup_8_steps"]:5.1f}x; 4 steps {entry["speedup_4_steps"]:5.1f}x; '
              f'output differs by {entry["relative_output_difference"]:.1e}')
    print(f'student of one step, points, small decoder: {report["student_1_step_speedup"]:.1f}x (another model)')
    return 0
