"""Own recordings: what goes out comes in again unchanged, and what is damaged is one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes.lerobot_v21 import as_v21, with_films
from fakes.synthetic_episodes import episode_arrays, write_episodes

from geo4d_ros.cli.main import main
from geo4d_ros.data.episodes import SCHEMA, Episode, list_episodes, write_episode
from geo4d_ros.robots.registry import load_robot

FORMATS = {
    'mcap': ('bag', []), 'sqlite3': ('bag', ['--storage', 'sqlite3']), 'folder': ('folder', []),
    'lerobot': ('lerobot', ['--depth']), 'lerobot-v2.1': ('lerobot', ['--depth']),
}


@pytest.fixture(scope='module')
def episodes(tmp_path_factory):
    directory = tmp_path_factory.mktemp('made')
    write_episodes(directory, 2)
    return directory


def exported(directory, out, kind):
    command, options = FORMATS[kind]
    assert main(['export', command, str(directory), '--out', str(out), *options]) == 0
    if kind == 'lerobot-v2.1':
        as_v21(out)
    return out


@pytest.fixture(scope='module')
def sources(episodes, tmp_path_factory):
    """Copies of the exported episodes; every kind is exported once."""
    made = {}

    def copy_of(kind, out):
        if kind not in made:
            made[kind] = exported(episodes, tmp_path_factory.mktemp('exported') / kind, kind)
        return Path(shutil.copytree(made[kind], out))
    return copy_of


@pytest.fixture
def brought_in(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(source, *options, expect=0):
        code = main(['import', str(source), '--output', str(tmp_path / 'in'), '--size', '32x32', *options])
        text = capsys.readouterr()
        assert code == expect, text.err
        return tmp_path / 'in', text
    return run


@pytest.mark.parametrize('kind', FORMATS)
def test_what_goes_out_comes_in_again(episodes, sources, tmp_path, brought_in, kind):
    out, text = brought_in(sources(kind, tmp_path / 'out'))
    assert '2 episodes, 48 moments' in text.out and 'missing' not in text.out
    for path in list_episodes(episodes):
        before, after = Episode.open(path), Episode.open(out / path.name)
        for name, value in before.load().items():
            read = after.read(name)
            assert read.shape == value.shape and read.dtype == value.dtype, name
            if value.dtype == np.float64:  # quaternions on the way, float32 in LeRobot's state
                np.testing.assert_allclose(read, value, atol=1e-7, err_msg=name)
            else:
                np.testing.assert_array_equal(read, value, err_msg=name)
        assert after.joint_names == before.joint_names and after.seed == before.seed
        assert after.attributes['success'] and after.instruction is not None
    report = json.loads((tmp_path / 'outputs/import.json').read_text())
    assert report['episodes'] == 2 and report['recordings'][0]['largest_skew_ms'] == 0


def test_five_joints_and_one_camera_go_through_a_bag(tmp_path, brought_in):
    arrays = {**episode_arrays(0), 'joints': np.random.default_rng(0).uniform(size=(24, 5))}
    arrays |= {name: arrays[name][:1] for name in ('rgb', 'depth', 'labels', 'K', 'T_base_camera')}
    names = ['lift', 'elbow', 'wrist_1', 'wrist_2', 'wrist_3']
    (tmp_path / 'made').mkdir()
    write_episode(tmp_path / 'made', arrays, {'task': 'own', 'seed': 0, 'success': True, 'perturbed': False,
                                              'joint_names': names})
    out, text = brought_in(exported(tmp_path / 'made', tmp_path / 'out', 'mcap'))
    episode = Episode.open(list_episodes(out)[0])
    assert episode.joint_names == tuple(names) and episode.cameras == 1
    np.testing.assert_array_equal(episode.read('joints'), arrays['joints'])
    assert 'not trainable without a second camera' in text.out


@pytest.mark.parametrize('kind', ['mcap', 'folder'])
def test_a_named_robot_gets_its_joints_in_its_order(tmp_path, brought_in, kind):
    arrays = {**episode_arrays(0), 'joints': np.random.default_rng(0).uniform(size=(24, 7))}
    joints = load_robot('ur5e_2f85').joints
    names = ['rail', *sorted(joints)]  # as a driver publishes them: another joint first, and by the alphabet
    assert tuple(names[1:]) != joints
    (tmp_path / 'made').mkdir()
    write_episode(tmp_path / 'made', arrays, {'task': 'own', 'seed': 0, 'success': True, 'perturbed': False,
                                              'joint_names': names, 'robot': 'panda'})
    source = exported(tmp_path / 'made', tmp_path / 'out', kind)
    frames = ['--base-frame', 'panda_link0', '--gripper-frame', load_robot().tool_frame]
    out, _ = brought_in(source, '--robot', 'ur5e_2f85', *frames)
    episode = Episode.open(list_episodes(out)[0])
    assert episode.joint_names == joints and episode.robot == 'ur5e_2f85'
    np.testing.assert_array_equal(episode.read('joints'), arrays['joints'][:, [names.index(n) for n in joints]])
    _, text = brought_in(source, '--robot', 'panda', expect=2)
    assert 'has no joint' in text.err and 'is it another --robot?' in text.err


def write_partial(directory, names):
    directory.mkdir()
    write_episode(directory, {k: v for k, v in episode_arrays(0).items() if k in names},
                  {'task': 'own', 'seed': 3, 'success': True, 'perturbed': False})


@pytest.mark.parametrize('kind', FORMATS)
def test_what_is_missing_is_said_with_what_can_still_be_trained(tmp_path, brought_in, kind):
    write_partial(tmp_path / 'made', ('rgb', 'depth', 'K', 'T_base_camera', 'times'))
    out, text = brought_in(exported(tmp_path / 'made', tmp_path / 'out', kind))
    assert set(Episode.open(list_episodes(out)[0]).missing) == {
        'labels', 'T_base_gripper', 'joints', 'opening', 'opening_command', 'object_pose'}
    assert 'missing: labels in 1 of 1' in text.out
    assert 'trainable: RGB and pointmap video' in text.out
    assert 'not trainable without T_base_gripper, opening: the same with the state stream' in text.out


def test_calibration_from_a_file_fills_the_gap(tmp_path, brought_in):
    write_partial(tmp_path / 'made', ('rgb', 'depth', 'times'))
    source = exported(tmp_path / 'made', tmp_path / 'out', 'mcap')
    out, text = brought_in(source)
    assert 'missing: K' in text.out and 'trainable: RGB' not in text.out
    known = {f'camera{c + 1}': {'fx': 34, 'fy': 34, 'cx': 15.5, 'cy': 15.5, 'T_base_camera': np.eye(4).tolist()}
             for c in range(3)}
    (tmp_path / 'known.json').write_text(json.dumps(known))
    out, text = brought_in(source, '--calibration', str(tmp_path / 'known.json'))
    assert 'trainable: RGB and pointmap video' in text.out
    second = Episode.open(out / 'own-000004.zarr')  # the first import is not overwritten
    np.testing.assert_array_equal(second.read('K')[2], [[34, 0, 15.5], [0, 34, 15.5], [0, 0, 1]])


def test_chosen_cameras_come_in_the_order_asked_for(sources, tmp_path, brought_in):
    source = sources('mcap', tmp_path / 'out')
    out, _ = brought_in(source, '--cameras', 'camera3', 'camera1')
    np.testing.assert_array_equal(Episode.open(out / 'apple-000000.zarr').read('rgb'), episode_arrays(0)['rgb'][[2, 0]])
    _, text = brought_in(source, '--cameras', 'camera9', expect=2)
    assert 'has no camera camera9; it has camera1, camera2, camera3' in text.err


def test_films_of_a_dataset_are_read(sources, tmp_path, brought_in):
    source = sources('lerobot', tmp_path / 'out')
    with_films(source, 'observation.images.camera_1')
    out, _ = brought_in(source)
    for seed in range(2):  # the second episode begins in the middle of the film
        read, true = Episode.open(out / f'apple-{seed:06d}.zarr').read('rgb')[1], episode_arrays(seed)['rgb'][1]
        assert np.abs(read.astype(int) - true).mean() < 12
        brightest = [int(frame[12].sum(1).argmax()) for frame in read]
        assert brightest[20] > brightest[0] + 10  # the square moves as it did


def cut_file(pattern):
    def damage(source):
        file = max(source.rglob(pattern), key=lambda p: p.stat().st_size)
        file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])
    return damage


def remove(pattern):
    def damage(source):
        for path in source.rglob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return damage


def garble(pattern):
    def damage(source):
        for path in source.rglob(pattern):
            path.write_text('{ not, what \0 was expected')
    return damage


DAMAGE = [
    ('mcap', cut_file('*.mcap')), ('mcap', remove('*.mcap')), ('mcap', garble('metadata.yaml')),
    ('sqlite3', cut_file('*.db3')), ('sqlite3', garble('*.db3')),
    ('folder', cut_file('rgb/000003.png')), ('folder', remove('times.csv')), ('folder', garble('camera.json')),
    ('folder', garble('poses.csv')), ('folder', remove('rgb/*.png')),
    ('lerobot', cut_file('data/**/*.parquet')), ('lerobot', garble('meta/info.json')),
    ('lerobot', remove('episodes/**/*.parquet')), ('lerobot-v2.1', remove('data/**/*.parquet')),
    ('lerobot-v2.1', garble('meta/episodes.jsonl')), ('lerobot', remove('data')),
]


@pytest.mark.parametrize('kind,damage', DAMAGE, ids=lambda v: v if isinstance(v, str) else '')
def test_damage_is_one_line(sources, tmp_path, brought_in, kind, damage):
    source = sources(kind, tmp_path / 'out')
    if kind == 'folder':
        about = source / 'apple-000000/recording.json'
        about.write_text(json.dumps({k: v for k, v in json.loads(about.read_text()).items() if k != 'rate_hz'}))
    damage(source if kind.startswith('lerobot') else source / 'apple-000000')
    _, text = brought_in(source, expect=2)
    lines = [line for line in text.err.splitlines() if line.startswith('geo4d')]
    assert len(lines) == 1 and 'Traceback' not in text.err
    if not kind.startswith('lerobot'):
        assert 'apple-000000' in lines[0]
        assert (tmp_path / 'in/apple-000001.zarr').is_dir()  # the sound one beside it came in


@pytest.mark.parametrize('make,words', [
    (lambda p: None, 'does not exist'),
    (lambda p: p.mkdir(), 'no recording that can be read; there are readers for realsense, rosbag2, lerobot, folder'),
    (lambda p: p.write_text('hello'), 'no recording that can be read'),
])
def test_what_is_no_recording_is_refused(tmp_path, brought_in, make, words):
    make(tmp_path / 'thing')
    _, text = brought_in(tmp_path / 'thing', expect=2)
    assert words in text.err and len(text.err.strip().splitlines()) == 1


def test_an_unknown_reader_lists_what_exists(episodes, tmp_path, brought_in):
    _, text = brought_in(episodes, '--reader', 'tape', expect=2)
    assert "unknown reader 'tape'; pick one of realsense, rosbag2, lerobot, folder" in text.err


def test_a_reader_of_another_package_is_found(monkeypatch, tmp_path, brought_in):
    from geo4d_ros.data.readers.folder import FolderReader
    from geo4d_ros.data.readers.registry import READERS

    class Tape(FolderReader):
        name = 'tape'

        def accepts(self, source: Path) -> bool:
            return source.suffix == '.tape'

    monkeypatch.setitem(READERS._added, 'tape', Tape)
    write_partial(tmp_path / 'made', ('rgb', 'times'))
    exported(tmp_path / 'made', tmp_path / 'out', 'folder')
    (tmp_path / 'out/own-000003').rename(tmp_path / 'own.tape')
    out, _ = brought_in(tmp_path / 'own.tape')
    assert Episode.open(out / 'own-000003.zarr').attributes['reader'] == 'tape'


def test_every_array_has_a_remedy():
    from geo4d_ros.data.trainings import REMEDIES

    assert set(REMEDIES) == set(SCHEMA) - {'rgb', 'times'}


def test_what_our_own_camera_command_writes_comes_in(tmp_path, brought_in):
    from geo4d_ros.cameras.recording import FolderWriter
    from geo4d_ros.types import RgbdFrame

    class Fake:
        def __init__(self, name):
            self.name, self.depth_unit = name, 0.0001

    frames = [RgbdFrame.example(32, 32, seed) for seed in range(5)]
    for name in ('left', 'right'):
        writer = FolderWriter(tmp_path / 'look', Fake(name))
        for i, frame in enumerate(frames):
            writer.write(RgbdFrame(frame.rgb, frame.depth, frame.K, 1_700_000_000_000_000_000 + i * 250_000_000))
        writer.close()
    out, text = brought_in(tmp_path / 'look', '--task', 'look')
    episode = Episode.open(list_episodes(out)[0])
    assert (episode.cameras, episode.frames) == (2, 5) and 'missing: T_base_camera' in text.out
    np.testing.assert_array_equal(episode.read('rgb')[1, 4], frames[4].rgb)
    np.testing.assert_allclose(episode.read('depth')[0, 2] * 1e-4, frames[2].depth, atol=6e-5)
