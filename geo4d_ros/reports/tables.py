"""Writes the figures of README.md and docs/results.md from the JSON in docs/results: none is typed by hand.

`python -m geo4d_ros.reports.tables` rewrites every block between `<!-- results: NAME -->` and
`<!-- end -->`; `--check` only says whether that would change anything.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geo4d_ros.errors import ConfigurationError
from geo4d_ros.evaluation.baselines.registry import BASELINES

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'(<!-- results: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)', re.DOTALL)
Report = dict[str, Any]


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def rate(entry: Report) -> str:
    """`0.85 [0.70, 0.93] (n=20)`."""
    low, high = entry['ci95']
    return f'{entry["success_rate"]:.2f} [{low:.2f}, {high:.2f}] (n={entry["n"]})'


def success_rows(reports: dict[str, Report]) -> str:
    """One row per report with a success rate for each task."""
    tasks = sorted({task for report in reports.values() for task in report['tasks']})
    rows = [[name, *(rate(report['tasks'][t]) if t in report['tasks'] else '-' for t in tasks),
             f'{report["success_rate"]:.2f}'] for name, report in reports.items()]
    return table(['', *tasks, 'all'], rows)


def expert(reports: dict[str, Report]) -> str:
    """Success of the scripted expert."""
    tasks = reports['expert']['tasks']
    return table(list(tasks), [[rate(entry) for entry in tasks.values()]])


def others(reports: dict[str, Report]) -> str:
    """Other robots and longer tasks: one row per task of every `<what>_closed_loop.json` and `<what>_expert.json`."""
    rows = []
    for name, report in reports.items():
        what, _, kind = name.partition('_')
        if kind in ('closed_loop', 'expert') and what != 'baselines':
            rows += [[report['robot'], task, kind.replace('_', ' '), rate(entry)]
                     for task, entry in report['tasks'].items()]
    return table(['robot', 'task', 'what', 'success'], rows)


def closed_loop(reports: dict[str, Report]) -> str:
    """Closed-loop success, one row per `closed_loop_<row>.json`."""
    chosen = {name.removeprefix('closed_loop_').replace('_', ' '): report
              for name, report in reports.items() if name.startswith('closed_loop_')}
    return success_rows(chosen)


def headline(reports: dict[str, Report]) -> str:
    """The README's few figures, each with the command that makes it."""
    loop, video, latency = reports['closed_loop_fused'], reports['video']['rows'], reports['loop']
    model, copy = video['model']['motion_masked'], video['copy']['motion_masked']
    worst = min(loop['tasks'], key=lambda task: loop['tasks'][task]['success_rate'])
    held_out = '--cameras held-out --seed-start 500000'
    safety, to_plan = reports['safety'], latency['camera_to_plan_ms']
    return table(['figure', 'value', 'made by'], [
        ['closed loop, success', f'{loop["success_rate"]:.2f}; worst task ({worst}) {rate(loop["tasks"][worst])}',
         f'`geo4d evaluate closed-loop --episodes {loop["tasks"][worst]["n"]} {held_out}`'],
        ['3D error where something moves',
         f'{model["error_3d_cm"]:.1f} cm (copying frame 0: {copy["error_3d_cm"]:.1f})',
         '`geo4d evaluate video --split held-out-cameras`'],
        ['camera image to published plan, two cores', f'{to_plan["p50"]:.0f} ms p50 (n={to_plan["n"]})',
         '`geo4d benchmark loop`'],
        ['plans that broke a limit', f'{safety["violations"]} of {safety["motions"]} motions, {safety["cases"]} cases',
         f'`geo4d evaluate safety --cases {safety["cases"]} --seed {safety["seed"]}`'],
    ])


def figures(name: str, keys: list[str]) -> Callable[[dict[str, Report]], str]:
    """A block that lists chosen top-level figures of one report."""
    def block(reports: dict[str, Report]) -> str:
        report = reports[name]
        return table(['figure', 'value'], [[key, _plain(report[key])] for key in keys if key in report])
    return block


def _plain(value: Any) -> str:
    return f'{value:.3g}' if isinstance(value, float) else '-' if value is None else str(value)


def video(reports: dict[str, Report]) -> str:
    """Full-frame and motion-masked metrics of every row of the video evaluation."""
    rows = []
    for name, row in reports['video']['rows'].items():
        for region in ('full_frame', 'motion_masked'):
            cells = row.get(region, {})
            rows.append([name, region.replace('_', ' '),
                         *(_plain(cells[key]) if isinstance(cells.get(key), float) else '-'
                           for key in ('psnr', 'ssim', 'abs_rel', 'delta1', 'error_3d_cm')),
                         _plain(row['consistency_covisible_miou']) if region == 'full_frame' else '-'])
    return table(['row', 'pixels', 'PSNR', 'SSIM', 'AbsRel', 'delta1', '3D error [cm]', 'consistency mIoU'], rows)


def readouts(reports: dict[str, Report]) -> str:
    """Median gripper position error of the first 5 predicted frames, one row per `video<_split>.json`."""
    chosen = {report['split']: report for name, report in reports.items() if name.split('_')[0] == 'video'}
    names = ('copy', 'state', 'fused', 'video')
    rows = [[split.replace('-', ' '), *(_plain(report['readouts'][n]['position_cm_first5_median']) for n in names),
             f'{report["n"]} of {report["n_episodes"]}'] for split, report in chosen.items()]
    return table(['scenes and cameras', *names, 'clips of episodes'], rows)


def comparison(name: str) -> Callable[[dict[str, Report]], str]:
    """A block of `<name>_video.json`, every row of it, with the closed-loop success in `<name>_closed_loop.json`."""
    def block(reports: dict[str, Report]) -> str:
        video, loop = reports[f'{name}_video'], reports[f'{name}_closed_loop']
        loops = {'model': loop, **loop['baselines']}
        rows = [_compared(row, key, video, loops.get(key)) for key, row in video['rows'].items() if key != 'codec']
        return table(['row', 'trained [min]', 'PSNR', 'AbsRel', '3D [cm]', 'consistency mIoU', 'state [cm]',
                      'video [cm]', 'closed loop'], rows)
    return block


def _compared(row: Report, name: str, video: Report, loop: Report | None) -> list[str]:
    """One line: motion-masked metrics, consistency, gripper error of the first 5 frames, success."""
    title = 'the shipped model' if name == 'model' else BASELINES[name].title
    trained, moved = video['training'].get(name, {}), row['motion_masked']
    readouts = video['readouts'] if name == 'model' else row.get('readouts', {})
    first = [_plain(readouts[r]['position_cm_first5_median']) if r in readouts else '-' for r in ('state', 'video')]
    return [f'`{name}` {title}', _plain(trained.get('trained_min', '-')),
            *(_plain(moved[key]) for key in ('psnr', 'abs_rel', 'error_3d_cm')), _consistency(row), *first,
            '-' if loop is None else f'{loop["readout"]}: {_overall(loop)}']


def openvino(reports: dict[str, Report]) -> str:
    """Prediction times in torch and in OpenVINO, one row per `openvino_<threads>_threads.json` and stage."""
    rows = []
    for name, report in reports.items():
        if not name.startswith('openvino_'):
            continue
        for stage in ('network', 'total'):
            times = (report['stages_ms'][backend][stage] for backend in ('torch', 'openvino'))
            rows.append([str(report['threads']), stage, *(f'{t["p50"]:.0f} / {t["p95"]:.0f}' for t in times),
                         f'{report["speedup_" + stage]:.2f}x'])
    return table(['threads', 'stage', 'torch p50 / p95 [ms]', 'OpenVINO p50 / p95 [ms]', 'faster'], rows)


def loop(reports: dict[str, Report]) -> str:
    """Latencies of the running nodes."""
    report = reports['loop']
    names = {'camera_to_plan_ms': 'camera image to published plan', 'plan_to_motion_ms': 'plan to motion',
             'overhead_ms': 'a cycle beside model and motion'}
    rows = [[label, *(f'{report[key][p]:.0f}' for p in ('p50', 'p95')), str(report[key]['n'])]
            for key, label in names.items()]
    predict = report['stages_ms']['predict']
    rows.insert(0, ['`/geo4d/predict`, waiting for a fresh pair included',
                    *(f'{predict[p]:.0f}' for p in ('p50', 'p95')), str(predict['n'])])
    return table(['latency [ms]', 'p50', 'p95', 'n'], rows)


def gaussians(reports: dict[str, Report]) -> str:
    """The reconstruction row of `gaussians_video.json` beside the copy."""
    rows = []
    for name in ('gaussians', 'copy'):
        row = reports['gaussians_video']['rows'][name]
        for region in ('full_frame', 'motion_masked'):
            rows.append([name, region.replace('_', ' '), *(_plain(row[region][key]) for key in
                                                           ('psnr', 'abs_rel', 'delta1', 'error_3d_cm')),
                         _consistency(row) if region == 'full_frame' else '-'])
    return table(['row', 'pixels', 'PSNR', 'AbsRel', 'delta1', '3D error [cm]', 'consistency mIoU'], rows)


def _consistency(row: Report) -> str:
    value, interval = row['consistency_covisible_miou'], row['ci95']['consistency_covisible_miou']
    return '-' if value is None else f'{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]'


def _overall(loop: Report) -> str:
    low, high = loop['ci95']
    return f'{loop["success_rate"]:.2f} [{low:.2f}, {high:.2f}] (n={sum(t["n"] for t in loop["tasks"].values())})'


def tracker(reports: dict[str, Report]) -> str:
    """One row per `tracker_<source>.json`."""
    keys = ('add_mm_mean', 'add_mm_median', 'adds_auc', 'failure_rate', 'open_closed_accuracy', 'opening_error_mm',
            'lost_auroc', 'ok_but_wrong_rate', 'refused_sequences', 'n')
    rows = [[name.removeprefix('tracker_').replace('_', ' '), *(_plain(report.get(key, '-')) for key in keys)]
            for name, report in reports.items() if name.startswith('tracker_')]
    return table(['sequences', *(key.replace('_', ' ') for key in keys)], rows)


def faults(reports: dict[str, Report]) -> str:
    """Runs, outcome and times of every injected fault."""
    rows = [[name.replace('_', ' '), f'{entry["runs_ok"]}/{entry["runs"]}', ', '.join(filter(None, entry['code'])),
             *(_times(entry[key]) for key in ('detection_ms', 'standstill_ms'))]
            for name, entry in reports['faults']['faults'].items()]
    return table(['fault', 'right', 'code', 'detection [ms]', 'standstill [ms]'], rows)


def serve(reports: dict[str, Report]) -> str:
    """What a remote prediction costs per compression, and what the server went through."""
    report = reports['serve']
    lossy = {'png': 'depth to 1 mm', 'jpeg': 'depth to 1 mm, colour'}
    rows = [[name, *(f'{row[key]:,}' for key in ('request_bytes', 'request_bytes_at_camera_size', 'reply_bytes')),
             *(f'{row[key]["p50"]:.0f} / {row[key]["p95"]:.0f}' for key in ('total_ms', 'overhead_ms')),
             lossy.get(name, 'none')] for name, row in report['compressions'].items()]
    header = ['compression', 'request [bytes]', 'the same at camera size', 'reply [bytes]', 'total p50 / p95 [ms]',
              'all but the model [ms]', 'loss']
    outcome, cut = report['malformed_outcome'], report['cut_off']
    said = (f'{report["malformed"]} malformed requests: {outcome["refused"]} refused, {outcome["hung_up"]} hung up on, '
            f'{outcome["unanswered"]} unanswered, {outcome["accepted"]} accepted. {report["clients_answered"]} of '
            f'{report["clients"]} clients at once were answered within {report["clients_wall_s"]:.0f} s, beside '
            f'{report["slow_clients"]} silent connections, {report["half_open_clients"]} that stop in the middle of a '
            f'message ({cut["half_open"]} of them cut off) and {report["unread_clients"]} that never read their answer '
            f'({cut["unread"]} cut off). The server went from {report["server_mib_before"]:.0f} to '
            f'{report["server_mib_after"]:.0f} MiB and {"lives" if report["survived"] else "DIED"}. '
            f'Load of the machine at the end: {report["load_average"]:.1f} on {report["cpu_count"]} cores.')
    return f'{table(header, rows)}\n\n{said}'


def workers(reports: dict[str, Report]) -> str:
    """Collecting and evaluating with one worker and with more, by processes and by Ray."""
    report = reports['ray']
    rows = [[f'{what.replace("_", " ")} ({report[count]})', *name.rsplit('_', 1), f'{row["per_s"]:.3f}',
             f'{row["ratio"]:.2f}x', f'{row["start_s"]:.1f}', 'yes' if report[what]['identical'] else 'NO']
            for what, count in (('collect', 'demos'), ('closed_loop', 'episodes'))
            for name, row in report[what].get('rows', {}).items()]
    return table(['what (how many)', 'by', 'workers', 'per second', 'to one', 'start [s]', 'results identical'], rows)


def _times(value: Any) -> str:
    if isinstance(value, dict):
        return ' / '.join(f'{v:.0f}' for v in value.values() if isinstance(v, (int, float))) or '-'
    return f'{value:.0f}' if isinstance(value, (int, float)) else '-'


BLOCKS: dict[str, Callable[[dict[str, Report]], str]] = {
    'expert': expert,
    'closed-loop': closed_loop,
    'others': others,
    'video': video,
    'read-outs': readouts,
    'baselines': comparison('baselines'),
    'headline': headline,
    'gaussians': gaussians,
    'openvino': openvino,
    'tracker': tracker,
    'faults': faults,
    'loop': loop,
    'serve': serve,
    'workers': workers,
    'safety': figures('safety', ['cases', 'violations', 'refusals_without_code']),
    'generator': figures('generator', ['device', 'same_output_speedup_25_steps', 'points_speedup_25_steps',
                                       'points_speedup_8_steps', 'student_1_step_speedup',
                                       'largest_output_difference', 'peak_memory_mib']),
}


def rewrite(text: str, reports: dict[str, Report]) -> str:
    """`text` with every block made anew from the reports (file stem -> report)."""
    def block(match: re.Match[str]) -> str:
        name = match['name']
        if name not in BLOCKS:
            raise ConfigurationError(f'the page asks for results {name!r}; available: {", ".join(BLOCKS)}')
        try:
            return f'{match[1]}{BLOCKS[name](reports)}\n{match[3]}'
        except KeyError as error:
            raise ConfigurationError(f'docs/results lacks {error} for the block {name!r}') from error
    return BLOCK.sub(block, text)


def main(argv: list[str]) -> int:
    """Rewrite README.md and docs/results.md; with --check exit 1 when it is out of date."""
    reports = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / 'docs/results').glob('*.json'))}
    stale = False
    for page in (ROOT / 'README.md', ROOT / 'docs/results.md'):
        old = page.read_text()
        new = rewrite(old, reports)
        stale |= new != old
        if '--check' not in argv:
            page.write_text(new)
    return int(stale and '--check' in argv)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
