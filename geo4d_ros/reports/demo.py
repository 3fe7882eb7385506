"""What a demo leaves behind: summary.json, episode.mp4 and report.html."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.evaluation.films import film_frame
from geo4d_ros.evaluation.movies import side_by_side, stack_rows, write_mp4
from geo4d_ros.reports.cycles import STAGES, RunCycle, cycles_of
from geo4d_ros.reports.html import HtmlReport
from geo4d_ros.types import Video4D

EXECUTED_FRAMES = 5
FILM_FPS = 8.0


class DemoSummary(TypedDict):
    """What DESIGN section 9 has of a demo; fault: null or a code; processes: node -> its id."""

    task: str
    robot: str
    seed: int
    success: bool
    cycles: int
    fault: str | None
    reason: str
    stages_ms: dict[str, dict[str, float]]  # stage -> p50 and p95
    readout: str
    cameras: str
    checkpoint: str | None
    model_sha256: str | None
    revision: str
    processes: dict[str, int]
    wall_s: float  # of the loop


def write_demo(folder: Path, summary: DemoSummary, pictures: list[Any], predictions: list[Any],
               spans: list[tuple[float, float, str]], reasons: dict[int, str] | None = None) -> None:
    """Write the three files. pictures and predictions are those of `ros.graph.run_recorder`, spans (begin, end, phase),
    reasons: cycle -> code of why it was refused or ended.
    """
    cycles = cycles_of(pictures, predictions, spans, reasons or {}, EXECUTED_FRAMES)
    written = {**summary, 'cycle_table': [cycle.to_json() for cycle in cycles]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'summary.json').write_text(json.dumps(written, indent=1) + '\n')
    except OSError as error:
        raise ConfigurationError(f'cannot write {folder}: {error.strerror}; choose a writable --out') from error
    frames = film(pictures, predictions, spans)
    if frames:
        write_mp4(folder / 'episode.mp4', frames, FILM_FPS)
    _write_page(folder, summary, frames, cycles, [p.video for p in predictions if p.video is not None])


def film(pictures: list[Any], predictions: list[Any], spans: list[tuple[float, float, str]]) -> list[np.ndarray]:
    """One picture per recorded moment from the first prediction on: real views above, what was predicted below."""
    frames = []
    begun = min((begin for begin, _, phase in spans if phase == 'PREDICTING'), default=0.0)
    for picture in pictures:
        if picture.time < begun:
            continue
        phase, progress = phase_at(picture.time, spans)
        if picture.prediction >= 0:
            rgb = predictions[picture.prediction].rgb
            predicted = list(rgb[:, min(round(progress * EXECUTED_FRAMES), rgb.shape[1] - 1)])
        else:
            predicted = [np.zeros_like(view) for view in picture.real]
        caption = f'prediction {picture.prediction + 1}   {phase.lower()}'
        frames.append(film_frame(list(picture.real), predicted, caption, scale=1))
    return frames


def phase_at(moment: float, spans: list[tuple[float, float, str]]) -> tuple[str, float]:
    """Phase at a moment and how far the newest prediction is executed (0..1; 1 until the next one is there)."""
    execution: tuple[float, float] | None = None
    name = ''
    for begin, end, phase in spans:
        if phase == 'EXECUTING':
            execution = (begin, end)
        elif phase == 'PLANNING':
            execution = None
        name = phase
        if moment < end:
            break
    if execution is None:
        return name, 0.0
    return name, float(np.clip((moment - execution[0]) / max(execution[1] - execution[0], 1e-6), 0, 1))


def write_rrd(path: Path, predictions: list[Any], reasons: dict[int, str]) -> None:
    """The predictions of a run, with the path of their state streams and what came of each cycle, for Rerun."""
    from geo4d_ros.evaluation.rerun_scene import RerunScene

    with RerunScene(path) as scene:
        for number, video in enumerate((p.video for p in predictions if p.video is not None), 1):
            scene.prediction(number, video)
            if video.state is not None:
                scene.track(number, video.state, video.stamps)
            scene.verdict(number, reasons.get(number, 'executed'), number not in reasons)


def _write_page(folder: Path, summary: DemoSummary, frames: list[np.ndarray], cycles: list[RunCycle],
                videos: list[Video4D]) -> None:
    page = HtmlReport(f'Closed loop on {summary["task"]}, seed {summary["seed"]}')
    success = summary['success']
    page.text('The task succeeded.' if success else 'The task did not succeed.', 'good' if success else 'bad')
    page.text(f'The loop ended with fault {summary["fault"]}.' if summary['fault']
              else f'The loop ran without a fault ({summary["reason"]}).')
    page.table(['', ''], [['cycles', summary['cycles']], ['loop time [s]', summary['wall_s']],
                          ['read-out', summary['readout']], ['cameras', summary['cameras']],
                          ['checkpoint', summary['checkpoint']], ['weights', summary['model_sha256']],
                          ['revision', summary['revision']],
                          ['processes', ', '.join(f'{n} {p}' for n, p in summary['processes'].items())]])
    page.heading('Stages')
    page.table(['stage', 'p50 [ms]', 'p95 [ms]'],
               [[name, v['p50'], v['p95']] for name, v in summary['stages_ms'].items()])
    _write_cycles(page, cycles)
    if frames:
        page.heading('Episode')
        page.video(folder / 'episode.mp4', 'Above what the cameras saw, below what was predicted for that moment.')
        picks = np.linspace(0, len(frames) - 1, min(4, len(frames))).astype(int)
        for i in picks:
            page.image(frames[i], f'picture {i + 1} of {len(frames)}')
    if videos:
        page.heading('In 3D')
    for number in sorted({1, len(videos)} if videos else ()):
        page.cloud(videos[number - 1], f'Prediction {number}, both views in the frame of the reference camera: drag to '
                                       'turn, wheel to come closer, the slider goes through its frames. The line is '
                                       'the predicted path of the gripper.')
    page.write(folder / 'report.html')


def _write_cycles(page: HtmlReport, cycles: list[RunCycle]) -> None:
    """The table of cycles, and of each that moved the arm what was predicted beside what came."""
    if not cycles:
        return
    page.heading('Cycles')
    stages = list(STAGES.values())
    page.table(['cycle', 'reason', *[f'{stage} [ms]' for stage in stages], 'prediction [dB]', 'no motion [dB]'],
               [[c.number, c.reason or 'executed', *[c.stages_ms.get(stage) for stage in stages], c.psnr_moved,
                 c.copy_psnr_moved] for c in cycles])
    page.text('The last two columns: PSNR of the predicted picture against the one that came after the motion, over '
              'the pixels that changed, and what the picture from before would have scored.')
    for c in cycles:
        if c.before is None or c.predicted is None or c.after is None:
            continue
        rows = [side_by_side([c.before[v], c.predicted[v], c.after[v]], ['before', 'predicted', 'came'])
                for v in range(len(c.before))]
        page.image(stack_rows(rows), f'cycle {c.number}: before, predicted for after the motion, what came; '
                                     'above the reference camera, below the second')
