"""What the demo writes, from made-up pictures; its bad input; its timing of stages."""

import base64
import html
import json
import re

import numpy as np
import pytest

from geo4d_ros.cli.main import main
from geo4d_ros.reports.cloud import cloud_figure
from geo4d_ros.reports.cycles import cycles_of
from geo4d_ros.reports.demo import film, phase_at, write_demo
from geo4d_ros.types import Video4D

SPANS = [(0.0, 1.0, 'OBSERVING'), (1.0, 3.0, 'PREDICTING'), (3.0, 4.0, 'PLANNING'), (4.0, 8.0, 'EXECUTING'),
         (8.0, 9.0, 'SETTLING'), (9.0, 9.5, 'OBSERVING'), (9.5, 11.5, 'PREDICTING')]


class Picture:
    def __init__(self, time, prediction):
        self.time, self.prediction = time, prediction
        self.real = np.full((2, 24, 32, 3), 90, np.uint8)


class Prediction:
    plan, video = 'p', None
    rgb = np.stack([np.full((2, 24, 32, 3), 20 * k, np.uint8) for k in range(11)], axis=1)


def _summary(**changes):
    return {'task': 'apple', 'seed': 1, 'success': True, 'cycles': 2, 'fault': None, 'reason': 'TASK_DONE',
            'stages_ms': {'predict': {'p50': 1.0, 'p95': 2.0}}, 'model_sha256': 'abc', 'revision': 'r',
            'processes': {'simulated_cell': 1, 'prediction': 2, 'plan_executor': 3}, 'wall_s': 5.0,
            'readout': 'fused', 'cameras': 'held-out', 'checkpoint': 'c', **changes}


def test_phase_and_progress_follow_the_execution():
    assert phase_at(2.0, SPANS) == ('PREDICTING', 0.0)
    assert phase_at(6.0, SPANS) == ('EXECUTING', 0.5)
    assert phase_at(8.5, SPANS) == ('SETTLING', 1.0)
    assert phase_at(10.0, SPANS) == ('PREDICTING', 1.0)
    assert phase_at(3.5, SPANS) == ('PLANNING', 0.0)


def test_film_shows_the_predicted_frame_of_that_moment():
    frames = film([Picture(0.5, -1), Picture(1.5, -1), Picture(6.0, 0), Picture(8.5, 0)], [Prediction()], SPANS)
    below = [frame[-3, 5] for frame in frames]
    assert [int(pixel[0]) for pixel in below] == [0, 40, 100]


def test_demo_leaves_summary_film_and_page(tmp_path):
    write_demo(tmp_path, _summary(), [Picture(t, 0) for t in np.arange(1, 9, 0.5)], [Prediction()], SPANS)
    assert json.loads((tmp_path / 'summary.json').read_text())['processes']['prediction'] == 2
    assert (tmp_path / 'episode.mp4').stat().st_size > 500
    page = (tmp_path / 'report.html').read_text()
    assert 'The task succeeded.' in page and 'data:video/mp4;base64,' in page


def test_predictions_can_be_turned_in_the_page(tmp_path):
    shown = Prediction()
    shown.video = Video4D.example()
    write_demo(tmp_path, _summary(), [Picture(t, 0) for t in np.arange(1, 9, 0.5)], [shown, shown], SPANS)
    page = (tmp_path / 'report.html').read_text()
    assert page.count('<figure class="cloud"') == 2 and page.count('<script>') == 1
    assert 'src="http' not in page and 'Prediction 2, both views' in page


def test_a_cloud_holds_every_frame_in_millimetres():
    video = Video4D.example()
    figure = cloud_figure(video, 'a <caption>')
    scene = json.loads(html.unescape(re.search('data-scene="([^"]*)"', figure)[1]))
    data = base64.b64decode(re.search('data-points="([^"]*)"', figure)[1])
    total = sum(scene['counts'])
    xyz, rgb = np.frombuffer(data[:6 * total], '<i2').reshape(-1, 3), np.frombuffer(data[6 * total:], np.uint8)
    assert len(scene['counts']) == video.frames and len(rgb) == 3 * total
    first = video.points[:, 0][video.valid[:, 0]]
    assert scene['counts'][0] == len(first)  # few enough points: none is left out
    np.testing.assert_allclose(xyz[:len(first)] * 1e-3, first, atol=6e-4)
    np.testing.assert_array_equal(rgb.reshape(-1, 3)[:len(first)], video.rgb[:, 0][video.valid[:, 0]])
    assert '<caption>' not in figure and len(scene['path']) in (0, video.frames)


def test_cycles_have_reasons_timings_and_what_came_of_the_prediction(tmp_path):
    pictures = [Picture(t, 0) for t in (3.5, 6.0)] + [Picture(8.5, 0)]
    pictures[-1].real = np.full((2, 24, 32, 3), 104, np.uint8)  # frame 5 of the prediction is 100, frame 0 is 0
    first, second = cycles_of(pictures, [Prediction()], SPANS, {2: 'TASK_DONE'}, 5)
    assert first.stages_ms == {
        'observe': 1000.0, 'predict': 2000.0, 'plan': 1000.0, 'execute': 4000.0, 'settle': 1000.0}
    assert first.psnr_moved == pytest.approx(20 * np.log10(255 / 4), abs=0.01)
    assert first.copy_psnr_moved == pytest.approx(20 * np.log10(255 / 104), abs=0.01)
    assert (second.reason, second.psnr_moved, second.before) == ('TASK_DONE', None, None)
    write_demo(tmp_path, _summary(), pictures, [Prediction()], SPANS, {2: 'TASK_DONE'})
    page = (tmp_path / 'report.html').read_text()
    assert 'cycle 1: before, predicted' in page and 'TASK_DONE' in page and 'http' not in page.split('<body>')[0]
    assert [c['cycle'] for c in json.loads((tmp_path / 'summary.json').read_text())['cycle_table']] == [1, 2]


def test_a_cycle_in_which_nothing_moved_is_not_judged():
    still = [Picture(t, 0) for t in (3.5, 6.0, 8.5)]
    for picture in still:
        picture.real = np.zeros((2, 24, 32, 3), np.uint8)
    assert cycles_of(still, [Prediction()], SPANS, {}, 5)[0].psnr_moved is None


def test_a_run_without_pictures_still_says_what_happened(tmp_path):
    write_demo(tmp_path, _summary(success=False, fault='PEER_DEAD', reason='PEER_DEAD'), [], [], [])
    page = (tmp_path / 'report.html').read_text()
    assert 'did not succeed' in page and 'fault PEER_DEAD' in page
    assert not (tmp_path / 'episode.mp4').exists()


@pytest.mark.parametrize(('argv', 'words'), [
    (['--task', 'juggle'], 'unknown task juggle'),
    (['--checkpoint', 'nowhere'], "'nowhere' is neither"),
    (['--max-cycles', '0'], 'positive'),
    (['--seed', '-1'], 'not be negative'),
])
def test_bad_input_is_named(argv, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['demo', *argv]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and len(error.splitlines()) == 1
