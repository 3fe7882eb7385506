"""`evaluate video` from clip to page, with made-up clips and tiny generators and trackers."""

import os

os.environ.setdefault('MUJOCO_GL', 'egl')

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes.moving_square import moving_square

from geo4d_ros.errors import DatasetError
from geo4d_ros.evaluation.simulated_truth import clip_of, copy_video
from geo4d_ros.evaluation.video.data import clips_of, simulate, sources_of, window_starts
from geo4d_ros.evaluation.video.evaluate import VideoParts, evaluate_clip
from geo4d_ros.reports.video import summarise, write_page
from geo4d_ros.types import GripperTrack

FRAMES = 10


class Seer:
    """Predicts the clip it was made for; `noise` changes colours by seed, `state` adds the true track."""

    frames, dt = FRAMES, 0.5

    def __init__(self, clip, noise=0, state=True):
        self.clip, self.noise, self.state = clip, noise, state

    def predict(self, observation, seed=0):
        video = self.clip.video
        shift = np.random.default_rng(seed).integers(0, self.noise + 1, video.rgb.shape)
        rgb = np.clip(video.rgb.astype(int) - shift, 0, 255).astype(np.uint8)
        return replace(video, rgb=rgb, state=self.clip.track if self.state else None)


class ShiftedTracker:
    """The true track, moved by `shift` [m] from frame 1 on."""

    def __init__(self, clip, shift):
        self.clip, self.shift = clip, shift

    def track(self, video, observation):
        T = self.clip.track.T_ref_gripper.copy()
        T[1:, 0, 3] += self.shift
        t = self.clip.track
        return GripperTrack(T, t.opening, t.confidence, t.status)


@pytest.fixture
def clip():
    return replace(clip_of(moving_square(FRAMES, 2)), task='apple', seed=1)


def _parts(clip, **seer):
    trackers = {'fused': ShiftedTracker(clip, 0.01), 'video': ShiftedTracker(clip, 0.03),
                'state': ShiftedTracker(clip, 0.02)}
    return VideoParts({'model': Seer(clip, **seer)}, trackers)


def test_rows_readouts_and_diversity_of_one_clip(clip):
    result = evaluate_clip(_parts(clip, noise=40), clip, diversity_seeds=3, picture=True)
    assert list(result.rows) == ['model', 'copy', 'oracle_motion', 'codec']
    psnr = {name: row['views']['reference']['motion_masked']['psnr'] for name, row in result.rows.items()}
    assert psnr['codec'] == 100 > psnr['model'] > psnr['copy']
    assert result.readouts['video']['position_cm'] == pytest.approx(np.full(FRAMES, 3.0))
    assert result.readouts['fused']['position_cm'] == pytest.approx(np.full(FRAMES, 1.0))
    assert result.readouts['copy']['position_cm'][-1] == pytest.approx(2.0 * FRAMES)
    assert result.diversity['model'] > 0.01
    assert result.sample['true'].shape == clip.video.rgb.shape


def test_baselines_have_readouts_of_their_own_and_gaussians_a_row(clip):
    parts = _parts(clip)
    parts = replace(parts, generators={**parts.generators, 'svd': Seer(clip, state=False)}, gaussians=20)
    results = [evaluate_clip(parts, clip)] * 4
    rows = summarise(results, 'own')['rows']
    assert list(rows) == ['model', 'svd', 'gaussians', 'copy', 'oracle_motion', 'codec']
    assert set(rows['svd']['readouts']) == {'video'} == set(rows['gaussians']['readouts'])
    assert rows['svd']['readouts']['video']['position_cm_first5_median'] == pytest.approx(3.0)
    assert set(rows['svd']['ci95']['views']) == {'reference', 'second'}


def test_a_deterministic_model_has_no_diversity(clip):
    assert evaluate_clip(_parts(clip), clip, diversity_seeds=2).diversity == {'model': 0.0}


def test_without_a_state_stream_only_the_video_is_read(clip):
    assert set(evaluate_clip(_parts(clip, state=False), clip).readouts) == {'copy', 'video'}


def test_lpips_of_the_user_becomes_a_column(clip):
    parts = replace(_parts(clip), lpips=lambda a, b: float(np.abs(a.astype(float) - b).mean()))
    rows = evaluate_clip(parts, clip).rows
    assert rows['codec']['lpips'] == 0 < rows['copy']['lpips']


def test_report_has_the_documented_keys_and_the_page_stands_alone(clip, tmp_path):
    results = [evaluate_clip(_parts(clip, noise=20), clip, 2, True) for _ in range(2)]
    results.append(replace(results[0], task='cereal', seed=2))
    report = {'split': 'held-out-cameras', 'lpips_note': 'no LPIPS', **summarise(results, 'own')}
    json.dumps(report)
    model = report['rows']['model']
    assert {'full_frame', 'motion_masked', 'consistency_miou', 'chamfer_cm', 'gripper_error_cm', 'ci95', 'views',
            'tasks', 'frechet_distance', 'seed_diversity', 'regions', 'object', 'sharpness', 'futures'} <= set(model)
    assert set(model['full_frame']) == {'psnr', 'ssim', 'abs_rel', 'delta1', 'error_3d_cm', 'coverage'}
    assert model['gripper_error_cm'] == pytest.approx([1.0] * FRAMES)
    assert set(model['tasks']) == {'apple', 'cereal'}
    assert report['n'] == 3 and report['n_episodes'] == 2
    assert report['readouts']['video']['position_cm_first5_median'] == pytest.approx(3.0)
    assert report['rows']['codec']['frechet_distance'] <= report['rows']['copy']['frechet_distance']
    write_page(report, results, tmp_path / 'report.html')
    page = (tmp_path / 'report.html').read_text()
    assert page.count('data:video/mp4;base64,') == 2 and '<svg' in page and 'http' not in page


def test_copy_keeps_frame_zero(clip):
    video = copy_video(clip)
    assert (video.rgb == video.rgb[:, :1]).all() and (video.points == video.points[:, :1]).all()


def test_windows_are_spread_over_the_episode():
    assert window_starts(30, 10, 4) == [0, 8, 16, 24]
    assert window_starts(4, 10, 3) == [0]
    assert window_starts(30, 10, 1) == [0]


def test_sources_count_up_from_the_split_and_empty_folders_are_refused(tmp_path):
    sources = sources_of(None, ['apple', 'cereal'], 'train', 2, None)
    assert [(s.task, s.seed) for s in sources] == [('apple', 0), ('cereal', 0), ('apple', 1), ('cereal', 1)]
    assert sources_of(None, ['apple'], 'held-out-scenes', 1, None)[0].seed == 500_000
    with pytest.raises(DatasetError, match='no undisturbed episodes'):
        sources_of(tmp_path, ['apple'], 'train', 2, None)


def test_a_simulated_scene_and_its_recorded_episode_give_the_same_clip(tmp_path):
    pytest.importorskip('mujoco')
    from geo4d_ros.data.episodes import encode_depth, write_episode

    recording = simulate('apple', 510_001, 'held-out', 0.25, (48, 64))
    n = len(recording)
    arrays = {'rgb': recording.rgb, 'depth': encode_depth(recording.depth), 'labels': recording.labels,
              'K': recording.K, 'T_base_camera': recording.T_base_camera,
              'T_base_gripper': recording.T_base_gripper, 'joints': np.zeros((n, 7)), 'opening': recording.opening,
              'opening_command': recording.opening, 'object_pose': np.tile(np.eye(4), (n, 1, 1)),
              'times': 0.25 * np.arange(n)}
    write_episode(tmp_path, arrays, {'task': 'apple', 'seed': 510_001, 'success': True, 'perturbed': False})
    source = sources_of(tmp_path, ['apple'], 'held-out-cameras', 1, None)[0]
    clip = clips_of(source, 'held-out-cameras', 2, FRAMES, 0.5, (48, 64))[0]
    direct = clip_of(recording.window(0, FRAMES, 2))
    np.testing.assert_array_equal(clip.video.rgb, direct.video.rgb)
    both = clip.video.valid & direct.video.valid
    assert both.mean() > 0.5
    np.testing.assert_allclose(clip.video.points[both], direct.video.points[both], atol=2e-4)
    assert (np.diff(clip.video.stamps) == 500_000_000).all()
    with pytest.raises(DatasetError, match='48x64'):
        clips_of(source, 'held-out-cameras', 2, FRAMES, 0.5, (96, 128))
