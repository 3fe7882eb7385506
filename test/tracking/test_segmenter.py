"""The segmentation network: shapes, files, damaged files, learning from labels and from kinematics."""

import json
from dataclasses import replace

import numpy as np
import pytest
from fakes.gripper_scene import gripper_scene

from geo4d_ros.errors import CheckpointError, ConfigurationError, DatasetError
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.tracking.clip import prepare
from geo4d_ros.tracking.segmentation.landmarks import project_landmarks
from geo4d_ros.tracking.segmentation.masks import ColourMasks, FileMasks, kinematic_mask, mask_source
from geo4d_ros.tracking.segmentation.segmenter import CLASSES, WEIGHTS, Segmenter, build_network, save
from geo4d_ros.training.segmenter.train import Damage, Samples, SegmenterTraining, iou_table, train_segmenter


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('segmenter')
    save(build_network(8).eval(), folder, {'note': 'untrained'}, 8)
    return folder


@pytest.mark.parametrize('size', [(96, 128), (30, 41)])
def test_probabilities_have_the_images_size_and_sum_to_one(weights, size):
    rgb, depth = np.zeros((3, *size, 3), np.uint8), np.ones((3, *size), np.float32)
    p = Segmenter.load(weights).probabilities(rgb, depth)
    assert p.shape == (3, len(CLASSES), *size)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)


def test_masks_of_a_chunk(weights):
    scene = gripper_scene(0, frames=2)
    masks = Segmenter.load(weights).masks(prepare(scene.video, scene.observation), None, 0.08)
    assert masks.landmarks.shape == (2, 2, 4, 48, 64) and masks.landmarks.sum((3, 4)).max() <= 1 + 1e-5
    assert masks.gripper.shape == masks.fingers.shape == masks.occluder.shape == (2, 2, 96, 128)
    assert (masks.fingers <= masks.gripper + 1e-6).all()


@pytest.mark.parametrize(('damage', 'message'), [
    (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-50]), 'truncated'),
    (lambda f: (f / WEIGHTS).unlink(), 'missing'),
    (lambda f: (f / 'config.json').write_text('{'), 'cannot be read'),
    (lambda f: (f / 'manifest.json').unlink(), 'manifest'),
    (lambda f: (f / 'config.json').write_text((f / 'config.json').read_text() + ' '), 'changed'),
    (lambda f: (f / 'config.json').write_text(json.dumps({'_class_name': 'Other'})), '_class_name')])
def test_damaged_files_are_named(tmp_path, damage, message):
    save(build_network(8).eval(), tmp_path, {}, 8)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Segmenter.load(tmp_path)


def samples_of(seeds):
    scenes = [gripper_scene(seed, frames=3) for seed in seeds]
    rgb = np.concatenate([s.video.rgb.reshape(-1, 96, 128, 3) for s in scenes])
    depth = np.concatenate([[s.video.depth(v, t) for v in range(2) for t in range(3)] for s in scenes])
    labels = np.concatenate([s.labels.reshape(-1, 96, 128) for s in scenes])
    landmarks = np.concatenate([
        project_landmarks(s.gripper, invert(s.video.T_ref_view[v]) @ s.T_ref_gripper[:3], s.opening[:3], s.video.K[v])
        for s in scenes for v in range(2)])
    return Samples(rgb, np.rint(depth * 1e4).astype(np.uint16), labels, landmarks, np.arange(len(rgb)) // 3)


def test_a_short_training_beats_the_untrained_network(tmp_path):
    samples = samples_of(range(4))
    config = SegmenterTraining(minutes=0.12, batch=4, width=8, learning_rate=5e-3)
    record = train_segmenter(samples, tmp_path, config, {})
    assert record['steps'] > 5
    segmenter = Segmenter.load(tmp_path)
    depth = samples.depth * np.float32(1e-4)
    predicted = segmenter.probabilities(samples.rgb, depth).argmax(1)
    untrained = Segmenter(build_network(8).eval()).probabilities(samples.rgb, depth).argmax(1)
    assert iou_table(predicted, samples.labels)['gripper'] > iou_table(untrained, samples.labels)['gripper'] + 0.05


def test_damage_keeps_labels_and_ranges():
    samples = samples_of([0])
    image, label, landmarks = Damage(samples, 0, crop=64).batch(12)
    assert image.shape == (12, 4, 64, 64) and image.dtype == np.float32 and np.isfinite(image).all()
    assert set(np.unique(label)) <= set(range(len(CLASSES)))
    assert np.isin(label, (2, 3, 4)).any(axis=(1, 2)).mean() > 0.5
    # Landmarks move with the window and its mirror image: the tool point stays between the fingers of the label.
    for points, fingers in zip(landmarks, np.isin(label, (3, 4)), strict=True):
        if fingers.sum() > 40:
            y, x = np.nonzero(fingers)
            assert np.hypot(points[0, 0] - x.mean(), points[0, 1] - y.mean()) < 12


def test_mesh_projected_by_kinematics_is_the_label():
    scene = gripper_scene(3, frames=1)
    mask = kinematic_mask(scene.gripper, scene.T_ref_gripper[0], scene.opening[0], scene.video.K[0], (96, 128))
    seen = scene.labels[0, 0] >= 2
    # Blind to what hides the gripper (the box here), and nothing else apart.
    assert not (seen & ~mask).any() and seen.sum() > 0.5 * mask.sum()


def test_colour_masks_find_a_white_gripper():
    scene = gripper_scene(0, frames=3)
    masks = ColourMasks(gripper_of())(prepare(scene.video, scene.observation), scene.T_ref_gripper[0], 0.08)
    true = scene.labels >= 2
    assert ((masks.gripper > 0.5) & true).sum() / ((masks.gripper > 0.5) | true).sum() > 0.8


def test_masks_from_files(tmp_path):
    from PIL import Image

    scene = gripper_scene(0, frames=2)
    for v in range(2):
        (tmp_path / f'view{v}').mkdir()
        for t in range(2):
            Image.fromarray(((scene.labels[v, t] >= 2) * 255).astype(np.uint8)).save(tmp_path / f'view{v}/{t:05d}.png')
    chunk = prepare(scene.video, scene.observation)
    masks = FileMasks(tmp_path)(chunk, None, 0.08)
    np.testing.assert_array_equal(masks.gripper > 0, scene.labels >= 2)
    (tmp_path / 'view1' / '00001.png').unlink()
    with pytest.raises(ConfigurationError, match=r'00001\.png'):
        FileMasks(tmp_path)(chunk, None, 0.08)


def test_auto_takes_the_segmenter_and_without_any_weights_the_generators_mask(weights, tmp_path):
    scene = gripper_scene(0, frames=2)
    video = replace(scene.video, gripper_mask=(scene.labels >= 2).astype(np.float32))
    chunk, bare = prepare(video, scene.observation), prepare(scene.video, scene.observation)
    assert mask_source('auto', gripper_of(), weights)(chunk, None, 0.08).source == 'segmenter'
    assert mask_source('auto', gripper_of(), tmp_path)(chunk, None, 0.08).source == 'generator'
    with pytest.raises(CheckpointError):
        mask_source('auto', gripper_of(), tmp_path)(bare, None, 0.08)
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(CheckpointError):
        mask_source('auto', gripper_of(), tmp_path)(chunk, None, 0.08)


def test_fine_tuning_starts_from_the_weights_given(weights, tmp_path):
    samples = samples_of([0])
    config = SegmenterTraining(minutes=0.001, batch=2, width=8)
    record = train_segmenter(samples, tmp_path, config, {}, weights)
    assert record['init_sha256'] == Segmenter.load(weights).sha256
    with pytest.raises(CheckpointError, match='wide'):
        train_segmenter(samples, tmp_path, SegmenterTraining(minutes=0.001, width=16), {}, weights)


def test_nothing_to_learn_from_is_named(tmp_path):
    from geo4d_ros.training.segmenter.train import load_samples

    with pytest.raises(DatasetError):
        load_samples(tmp_path, 4)
