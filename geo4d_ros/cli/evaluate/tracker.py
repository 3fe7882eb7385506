"""`geo4d evaluate tracker`: pose, opening and lost-detection accuracy on held-out seeds and cameras."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from geo4d_ros.cli.common import add_json_argument, write_report
from geo4d_ros.errors import ConfigurationError, require

if TYPE_CHECKING:
    from geo4d_ros.evaluation.simulated_truth import TruthClip
    from geo4d_ros.evaluation.tracker.evaluate import TrackerFigures, TrackRecord, TrustedFigures
    from geo4d_ros.types import Video4D

    Pair = tuple[TruthClip, Video4D]

STRESS = ((0.04, 3.0, 0), (0.02, 6.0, 0), (0.04, 1.0, 1))  # depth error, mask damage, 1 = one view


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument('--source', choices=('truth', 'noisy', 'model'), default='noisy',
                        help='what is tracked: the true future, the same with errors, or a generator\'s prediction')
    parser.add_argument('--views', type=int, choices=(1, 2), default=2)
    parser.add_argument('--noise', type=float, default=0.02, help='mean relative depth error of noisy (default 0.02)')
    parser.add_argument('--mask-damage', type=float, default=1.0, help='of noisy: 1 is edge blur and 15 %% noise')
    parser.add_argument('--backend', default='model', help='tracker backend (default model)')
    parser.add_argument('--backend-options', type=json.loads, default={}, metavar='JSON', help='its options')
    parser.add_argument('--readout', choices=('video', 'fused', 'state'), default='video')
    parser.add_argument('--masks', default='auto', help='auto, generator, segmenter, colour or files (default auto)')
    parser.add_argument('--segmenter', type=Path, metavar='DIR', help='segmenter weights (default: the shipped ones)')
    parser.add_argument('--checkpoint', type=Path, help='generator of --source model (default: the shipped one)')
    parser.add_argument('--sequences', type=int, default=60, help='number of sequences over the tasks (default 60)')
    parser.add_argument('--data', type=Path, metavar='DIR', help='episodes to use; recorded afresh when not given')
    parser.add_argument('--seed-start', type=int, default=500_000, help='first scene seed when recording')
    parser.add_argument('--size', default='96x128', help='image size HxW when recording (default 96x128)')
    parser.add_argument('--calibration-error', action='store_true',
                        help='turn and shift the second view by 2 deg / 20 mm first')
    parser.add_argument('--no-baseline', action='store_true', help='leave out ICP and the opening threshold')
    parser.add_argument('--no-stress', action='store_true', help='leave out the damaged runs of the lost detector')
    parser.add_argument('--jobs', type=int, default=1, help='processes that record (default 1)')
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Record or read the sequences, track them, print a table, write the report."""
    require(args.sequences >= 1, f'--sequences should be at least 1 but got {args.sequences}')
    require(0 <= args.noise <= 0.2, f'--noise should be a fraction in [0, 0.2] but got {args.noise}')
    started = time.monotonic()
    with ExitStack() as stack:
        folder = args.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='geo4d-tracker-')))
        clips = _sequences(args, folder)
        evaluation = _Evaluation(args)
        stack.callback(evaluation.close)
        report = evaluation.run(clips)
    seeds = sorted({clip.seed for clip in clips})
    settings = {'seed_start': seeds[0], 'seeds': seeds, 'episodes': len({(c.task, c.seed) for c in clips}),
                'source': args.source, 'views': args.views, 'noise': args.noise if args.source == 'noisy' else 0,
               'mask_damage': args.mask_damage if args.source == 'noisy' else 0, 'backend': args.backend,
               'readout': args.readout, 'masks': args.masks, 'calibration_error': args.calibration_error,
               'image_size': args.size if args.data is None else 'as recorded',
               'wall_s': round(time.monotonic() - started, 1)}
    write_report(f'evaluate-tracker-{args.source}-{args.views}', {**report.to_json(), **settings}, args.json)
    _print(report, args)
    return 0


def _sequences(args: argparse.Namespace, folder: Path) -> list[TruthClip]:
    from geo4d_ros.evaluation.tracker.sequences import load_sequences, record_sequences
    from geo4d_ros.simulation.tasks import BUILT_IN

    per_episode = 1
    if args.data is None:
        per_episode = 2
        episodes = -(-args.sequences // (len(BUILT_IN) * per_episode))
        try:
            height, width = (int(x) for x in args.size.lower().split('x'))
        except ValueError:
            raise ConfigurationError(f'--size should be HxW, as 96x128, but got {args.size!r}') from None
        record_sequences(folder, args.seed_start, episodes, tuple(sorted(BUILT_IN)), (height, width), args.jobs)
    clips = list(load_sequences(folder, per_episode))
    by_task: dict[str, list[TruthClip]] = {}
    for clip in clips:
        by_task.setdefault(clip.task, []).append(clip)
    share = -(-args.sequences // len(by_task))
    return [clip for group in by_task.values() for clip in group[:share]]


class IcpRow(TypedDict):
    """Point-to-plane registration instead of the tracker, keys of `TrackerFigures`."""

    n: int
    add_mm_mean: float
    adds_auc: float
    last_frame_mm: float
    failure_rate: float
    ms_per_frame_p50: float


class ThresholdRow(TypedDict):
    """The paper's rule for the opening: a threshold on the distance of the fingers."""

    open_closed_accuracy: float
    threshold_m: float
    tuned_on: str
    fingers_seen_share: float


@dataclass(frozen=True)
class Report:
    """What was measured; baselines: an IcpRow, a ThresholdRow or why there is none."""

    figures: TrackerFigures
    trusted: TrustedFigures
    model_sha256: str | None  # of the segmenter
    stress_sequences: int
    baselines: dict[str, Mapping[str, object]]

    def to_json(self) -> dict[str, object]:
        """The keys of DESIGN section 9 for `evaluate tracker`."""
        return {**self.figures, **self.trusted, 'model_sha256': self.model_sha256,
                'stress_sequences': self.stress_sequences, 'baselines': self.baselines}


class _Evaluation:
    def __init__(self, args: argparse.Namespace) -> None:
        from geo4d_ros.robots.gripper import gripper_of
        from geo4d_ros.tracking.factory import create_tracker

        self.args, self.gripper = args, gripper_of()
        self.tracker = create_tracker(args.backend, readout=args.readout, gripper=self.gripper, masks=args.masks,
                                      segmenter=args.segmenter, **args.backend_options)
        self.generator = None
        if args.source == 'model':
            from geo4d_ros.generation.loading import load_generator, read_by

            self.generator = read_by(load_generator(args.checkpoint or Path('models/geo4d-sim-small')), args.readout)

    def close(self) -> None:
        self.tracker.close()

    def run(self, clips: list[TruthClip]) -> Report:
        from geo4d_ros.evaluation.tracker.evaluate import summarise, trusted_errors

        args = self.args
        records, videos = self._track(clips, self.tracker, args.noise, args.mask_damage, args.views)
        stress = []
        if not args.no_stress and args.source != 'model':
            for noise, mask, single in STRESS:
                views = 1 if single else args.views
                stress += self._track(clips[::3], self.tracker, noise, mask, views, forced=True)[0]
        baselines = {} if args.no_baseline or args.source == 'model' else self._baselines(videos)
        return Report(summarise(records, stress), trusted_errors(records), self._segmenter_sha(), len(stress),
                      baselines)

    def _track(self, clips: list[TruthClip], tracker: Any, noise: float, mask: float, views: int,
               forced: bool = False) -> tuple[list[TrackRecord], list[Pair]]:
        from geo4d_ros.evaluation.tracker.evaluate import one_view, run_tracker

        records: list[TrackRecord] = []
        videos: list[Pair] = []
        for index, clip in enumerate(clips):
            pair = (clip, self._video(clip, index, noise, mask, forced))
            if views == 1:
                pair = one_view(*pair)
            with self._degraded(tracker, mask if forced or self.args.source == 'noisy' else 0.0, index):
                records.append(run_tracker(tracker, *pair, self.gripper))
            videos.append(pair)
        return records, videos

    def _video(self, clip: Any, index: int, noise: float, mask: float, forced: bool) -> Any:
        from geo4d_ros.evaluation.tracker.sequences import Damage, damage_video, shift_second_view

        rng = np.random.default_rng([index, clip.seed])
        if self.generator is not None:
            video = self.generator.predict(clip.observation, seed=0)
        elif self.args.source == 'noisy' or forced:
            video = damage_video(clip.video, Damage(noise, min(mask, 2.0)), rng)
        else:
            video = clip.video
        return shift_second_view(video, rng, np.radians(2), 0.02) if self.args.calibration_error else video

    def _degraded(self, tracker: Any, strength: float, seed: int) -> Any:
        """The tracker's mask source disturbed for the duration of one sequence."""
        from contextlib import contextmanager

        from geo4d_ros.evaluation.tracker.sequences import DegradedMasks

        @contextmanager
        def swapped() -> Any:
            source = tracker.masks
            if strength > 0:
                tracker.masks = DegradedMasks(source, strength, seed)
            try:
                yield
            finally:
                tracker.masks = source

        return swapped()

    def _baselines(self, videos: list[Pair]) -> dict[str, Mapping[str, object]]:
        from geo4d_ros.evaluation.baselines.trackers import IcpTracker
        from geo4d_ros.evaluation.tracker.evaluate import run_tracker, summarise

        source = self.tracker.masks
        icp = IcpTracker(self.gripper, source)
        records = [run_tracker(icp, clip, video, self.gripper) for clip, video in videos]
        summary = summarise(records)
        icp_row: IcpRow = {'n': summary['n'], 'add_mm_mean': summary['add_mm_mean'], 'adds_auc': summary['adds_auc'],
                           'last_frame_mm': summary['last_frame_mm'], 'failure_rate': summary['failure_rate'],
                           'ms_per_frame_p50': summary['ms_per_frame_p50']}
        return {'icp_point_to_plane': icp_row,
                'opening_threshold': self._threshold(videos) if self._segmenter_sha() else
                {'open_closed_accuracy': None, 'reason': 'no segmenter weights: the fingers cannot be told apart'}}

    def _threshold(self, videos: list[Pair]) -> ThresholdRow:
        from geo4d_ros.evaluation.baselines.trackers import best_threshold, finger_distance
        from geo4d_ros.tracking.opening import is_closed
        from geo4d_ros.tracking.segmentation.segmenter import CLASSES, Segmenter

        segmenter = Segmenter.load(self.args.segmenter)
        left, right = CLASSES.index('left_finger'), CLASSES.index('right_finger')
        distances, truth = [], []
        for clip, video in videos:
            shape = video.rgb.shape[:4]
            depth = np.stack([[video.depth(v, t) for t in range(shape[1])] for v in range(shape[0])])
            p = segmenter.probabilities(video.rgb.reshape(-1, *shape[2:], 3), depth.reshape(-1, *shape[2:]))
            p = p.reshape(*shape[:2], len(CLASSES), *shape[2:])
            distances.append(finger_distance(p, video.points, video.valid, left, right))
            truth.append(is_closed(clip.track.opening, self.gripper.max_opening))
        threshold, accuracy = best_threshold(distances, truth)
        return {'open_closed_accuracy': accuracy, 'threshold_m': threshold, 'tuned_on': 'these sequences',
                'fingers_seen_share': float(np.mean(np.isfinite(np.concatenate(distances))))}

    def _segmenter_sha(self) -> str | None:
        from geo4d_ros.errors import CheckpointError
        from geo4d_ros.tracking.segmentation.segmenter import Segmenter

        try:
            return Segmenter.load(self.args.segmenter).sha256
        except CheckpointError:
            return None


def _print(report: Report, args: argparse.Namespace) -> None:
    row = report.figures
    print(f'{args.source} {args.views} views, n={row["n"]}: ADD {row["add_mm_mean"]:.1f} mm, '
          f'ADD-S AUC {row["adds_auc"]:.1f}, last {row["last_frame_mm"]:.1f} mm, '
          f'failures {row["failures"]}/{row["n"]}')
    auroc = row['lost_auroc']
    print(f'open/closed {row["open_closed_accuracy"]:.3f}, opening {row["opening_error_mm"]:.1f} mm; '
          f'OK but wrong {row["ok_but_wrong_rate"]:.4f} of {row["ok_frames_judged"]} frames, lost AUROC '
          f'{"-" if auroc is None else f"{auroc:.3f}"}; {row["ms_per_frame_p50"]:.0f} ms per frame')
    for name, baseline in report.baselines.items():
        print(f'  {name}: ' + ', '.join(f'{k} {v:.3g}' for k, v in baseline.items() if isinstance(v, float)))
