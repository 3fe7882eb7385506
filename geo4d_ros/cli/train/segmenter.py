"""`geo4d train segmenter`: train the gripper segmenter on collected episodes, or fine-tune labels from kinematics."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, TypedDict

from geo4d_ros.cli.common import INTERRUPTED, add_json_argument, checkpoint_directory, write_report
from geo4d_ros.errors import ConfigurationError, require


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--data', type=Path, required=True, metavar='DIR', help='folder of episodes to learn from')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for config.json and the weights')
    parser.add_argument('--test-data', type=Path, metavar='DIR', help='episodes to measure on, with labels')
    parser.add_argument('--labels', choices=('episode', 'kinematics'), default='episode',
                        help="labels of the episodes, or the gripper's mesh at its measured pose (real robots)")
    parser.add_argument('--gripper', type=Path, metavar='FILE', help='YAML description of the gripper for kinematics')
    parser.add_argument('--minutes', type=float, default=15.0, help='budget of processor time (default 15)')
    parser.add_argument('--frames', type=int, default=10, help='frames per camera and episode (default 10)')
    parser.add_argument('--episodes', type=int, metavar='N', help='use at most N episodes, spread evenly (default all)')
    parser.add_argument('--generator', type=Path, metavar='DIR', help='learn from its frames too, painted along '
                        'the true paths (default: the shipped one with --labels episode; none: true frames only)')
    parser.add_argument('--predictions', type=int, metavar='N', help='how many of its predictions to learn from, 12 '
                        'frames each (default: one per 9 cameras of an episode)')
    parser.add_argument('--init', type=Path, metavar='DIR', help='start from these weights (default: from nothing)')
    parser.add_argument('--learning-rate', type=float, default=3e-3, help='highest (default 3e-3; less with --init)')
    parser.add_argument('--threads', type=int, default=1, help='threads of torch (default 1)')
    parser.add_argument('--seed', type=int, default=0)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Train, measure when test data is given, write the report."""
    import numpy as np

    from geo4d_ros.training.segmenter.generated import generated_samples, joined
    from geo4d_ros.training.segmenter.train import SegmenterTraining, load_samples, train_segmenter

    require(args.minutes > 0 and args.frames >= 1 and args.threads >= 1 and (args.predictions or 1) >= 1,
            '--minutes, --frames, --threads and --predictions should be positive')
    from geo4d_ros.training.budget import interruptible

    started = time.monotonic()
    samples = load_samples(args.data, args.frames, _gripper(args), args.episodes)
    generator = _generator(args)
    if generator is not None:
        predictions = args.predictions or len(np.unique(samples.clip)) // 9 + 1
        samples = joined(samples, generated_samples(args.data, generator, predictions))
    config = SegmenterTraining(minutes=args.minutes, frames=args.frames, threads=args.threads, seed=args.seed,
                               learning_rate=args.learning_rate)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f'cannot write {args.out}: {error.strerror}; choose a writable place') from error
    with interruptible() as asked:
        record = train_segmenter(samples, args.out, config, {'labels': args.labels}, args.init)
    report = {**record, 'wall_s': time.monotonic() - started}
    if args.test_data is not None and not asked.is_set():
        report.update(_measure(args, generator))
    write_report('train-segmenter', report, args.json)
    if asked.is_set():
        print(f'interrupted: what was learnt so far is in {args.out}; --init {args.out} goes on from there')
        return INTERRUPTED
    return 0


class Quality(TypedDict, total=False):
    """Intersection over union by class: of test images, of damaged ones, of a generator's."""

    iou: dict[str, float]
    iou_damaged: dict[str, float]
    iou_generated: dict[str, float]


def _measure(args: argparse.Namespace, generator: Any) -> Quality:
    from geo4d_ros.training.segmenter.generated import generated_samples
    from geo4d_ros.training.segmenter.train import evaluate_segmenter, load_samples

    test = load_samples(args.test_data, args.frames, limit=args.episodes)
    report: Quality = {'iou': evaluate_segmenter(test, args.out),
              'iou_damaged': evaluate_segmenter(test, args.out, damaged=True)}
    print(f'hand IoU {report["iou"]["hand"]:.3f}, damaged images {report["iou_damaged"]["hand"]:.3f}')
    if generator is not None:
        painted = generated_samples(args.test_data, generator, 40, args.seed + 1)
        report['iou_generated'] = evaluate_segmenter(painted, args.out)
        print(f'generated frames {report["iou_generated"]["hand"]:.3f}')
    return report


def _generator(args: argparse.Namespace) -> Any:
    if args.generator == Path('none') or (args.generator is None and args.labels == 'kinematics'):
        return None
    from geo4d_ros.generation.loading import load_generator

    return load_generator(checkpoint_directory(args.generator))


def _gripper(args: argparse.Namespace) -> object | None:
    if args.labels == 'episode':
        return None
    from geo4d_ros.robots.gripper import gripper_of, read_gripper

    return gripper_of() if args.gripper is None else read_gripper(args.gripper)
