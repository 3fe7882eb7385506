"""Pictures of the fingers on their metric grid, the network that reads them, its files, and how it is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from fakes.gripper_scene import gripper_scene
from hypothesis import given, settings
from hypothesis import strategies as st

from geo4d_ros.errors import CheckpointError, ConfigurationError
from geo4d_ros.geometry.transforms import invert
from geo4d_ros.robots.gripper import gripper_of
from geo4d_ros.tracking.clip import prepare
from geo4d_ros.tracking.factory import create_tracker
from geo4d_ros.tracking.model_tracker import ModelTracker, ModelTrackerConfig
from geo4d_ros.tracking.opening import is_closed, middle_of
from geo4d_ros.tracking.opening_network import (
    LEVELS,
    WEIGHTS,
    OpeningReader,
    build_network,
    opening_reader,
    save,
)
from geo4d_ros.tracking.segmentation.finger_patches import (
    CHANNELS,
    COLUMNS,
    ROWS,
    finger_patches,
    grid_points,
    view_scalars,
)
from geo4d_ros.training.opening import (
    OpeningSamples,
    OpeningTraining,
    evaluate_opening,
    level_loss,
    off_poses,
    train_opening,
)
from geo4d_ros.types import TrackStatus

GRIPPER = gripper_of()


def patches_of(scene):
    T = invert(scene.video.T_ref_view)[:, None] @ scene.T_ref_gripper[None]
    depth = np.stack([[scene.video.depth(v, t) for t in range(scene.video.frames)] for v in range(2)])
    return finger_patches(scene.video.rgb, depth, scene.video.K, T), view_scalars(scene.video.K, T)


def test_open_fingers_lie_where_the_grid_says():
    scene = gripper_scene(1, frames=2, closes=False)
    patches, scalars = patches_of(scene)
    assert patches.shape == (2, 2, CHANNELS, ROWS, COLUMNS) and scalars.shape == (2, 2, 5)
    points = grid_points().reshape(ROWS, COLUMNS, 3)
    frontal = int(scalars[:, 0, 3].argmax())
    tips = np.abs(points[..., 2] + 0.008) < 0.005
    finger = tips & (np.abs(np.abs(points[..., 1]) - 0.046) < 0.005)
    between = tips & (np.abs(points[..., 1]) < 0.02)
    behind = patches[frontal, 0, 3]
    assert np.median(np.abs(behind[finger])) < 0.4, 'a finger lies in the plane of the grid'
    assert np.median(behind[between]) > 1, 'between open fingers the table is seen'


def test_pictures_beside_the_image_are_empty():
    scene = gripper_scene(1, frames=2)
    T = np.tile(np.eye(4), (2, 2, 1, 1))
    T[..., :3, 3] = [5, 0, 1]
    patches = finger_patches(scene.video.rgb, np.ones(scene.video.rgb.shape[:4], np.float32), scene.video.K, T)
    assert not patches.any()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.floats(0.001, 0.079))
def test_the_median_is_on_the_likelier_side_of_a_threshold(weights, threshold):
    chances = np.array([weights]) + 1e-3
    chances /= chances.sum()
    levels = np.linspace(0, 0.08, 5)
    median, confidence = middle_of(chances, levels)
    fine = np.linspace(-0.01, 0.09, 20001)
    density = chances[0][np.clip(np.floor((fine + 0.01) / 0.02), 0, 4).astype(int)]
    below = density[fine < threshold].sum() / density.sum()
    if abs(below - 0.5) > 0.01:
        assert (median[0] < threshold) == (below > 0.5)
    assert 0 <= confidence[0] <= 1


def windows(count, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        scene = gripper_scene(100 * seed + i, frames=6, closes=i % 2 == 0)
        patches, scalars = patches_of(replace(scene, T_ref_gripper=off_poses(scene.T_ref_gripper, rng)))
        coded = np.concatenate([np.rint((patches[:, :, :3] + 1) * 127.5), np.rint(patches[:, :, 3:4] * 63.5) % 256,
                                patches[:, :, 4:]], 2).astype(np.uint8)
        found.append((coded, scalars, scene.opening, False))
    return OpeningSamples.stack(found)


def test_a_short_training_tells_closing_fingers(tmp_path):
    record = train_opening(windows(24), GRIPPER, tmp_path, OpeningTraining(minutes=0.25, batch=8, width=8), {})
    assert record['gripper_sha256'] == GRIPPER.sha256 and record['steps'] > 20
    found = evaluate_opening(windows(12, 1), GRIPPER, tmp_path)
    assert found['open_closed_accuracy'] > 0.9 and found['opening_error_m'] < 0.008


def test_the_loss_is_lowest_at_the_truth():
    import torch

    opening = torch.tensor([[0.3, 0.5, 0.25]])
    place = opening * (LEVELS - 1)
    logits = torch.log(torch.clamp(1 - (torch.arange(LEVELS) - place[..., None]).abs(), 1e-6))
    best = level_loss(logits, opening)
    assert level_loss(logits.roll(3, -1), opening) > best + 1
    assert level_loss(logits + 5, opening) == pytest.approx(float(best), abs=1e-5)


def test_frame_zero_of_off_poses_is_true():
    T = np.tile(np.eye(4), (11, 1, 1))
    off = off_poses(T, np.random.default_rng(0))
    np.testing.assert_array_equal(off[0], T[0])
    assert 0.0005 < np.abs(off[1:, :3, 3]).mean() < 0.02


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp('opening')
    save(build_network(4).eval(), folder, {'width': 4, 'gripper_sha256': GRIPPER.sha256})
    return folder


def test_chances_are_chances_and_one_view_is_enough(weights):
    scene = gripper_scene(0, frames=3)
    reader, chunk = OpeningReader.load(weights), prepare(scene.video, scene.observation)
    for views in ([0, 1], [1]):
        chances = reader.chances(chunk, views, scene.T_ref_gripper, 1.0)
        assert chances.shape == (3, LEVELS)
        np.testing.assert_allclose(chances.sum(1), 1)


class Shouting:
    """A reader that is sure of 20 mm after frame 2."""

    sha256 = gripper_sha256 = ''

    def chances(self, chunk, views, T_ref_gripper, start):
        chances = np.zeros((len(T_ref_gripper), LEVELS))
        chances[:3, -1], chances[3:, 8] = 1, 1
        return chances


def test_the_tracker_takes_the_opening_from_its_reader():
    scene = gripper_scene(1, closes=False)
    track = ModelTracker(scene.gripper, scene.masks, 'video', ModelTrackerConfig(reader=Shouting())).track(
        scene.video, scene.observation)
    assert track.details['opening'] == 'network' and track.status[0] is TrackStatus.OK
    raw = track.details['raw_opening']
    assert raw[0] == scene.observation.opening
    assert is_closed(raw, 0.08).tolist() == [False] * 3 + [True] * (len(raw) - 3)
    np.testing.assert_allclose(raw[3:], 0.02, atol=1e-9)


def test_damaged_weights_are_named(tmp_path):
    save(build_network(4).eval(), tmp_path, {'width': 4})
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:-9])
    with pytest.raises(CheckpointError):
        OpeningReader.load(tmp_path)
    with pytest.raises(CheckpointError, match='geo4d train opening'):
        OpeningReader.load(tmp_path / 'none')


def test_the_reader_is_chosen_by_name_and_gripper():
    other = replace(GRIPPER, max_opening=0.07, vertices=tuple(v * 1.1 for v in GRIPPER.vertices))
    assert opening_reader('masks', GRIPPER) is None
    assert opening_reader('auto', GRIPPER) is not None
    assert opening_reader('auto', other) is None
    with pytest.raises(ConfigurationError, match='another gripper'):
        opening_reader('network', other)
    with pytest.raises(ConfigurationError, match='one of'):
        create_tracker('model', opening='guess')
