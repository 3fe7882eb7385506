"""Bags of the RealSense SDK: depth is drawn into colour, its unit is read, what is missing is said."""

import numpy as np
import pytest
from rosbags.rosbag1 import Writer
from rosbags.typesys import Stores, get_typestore

from geo4d_ros.cli.main import main
from geo4d_ros.data.episodes import Episode, list_episodes
from geo4d_ros.data.readers.realsense import align_depth
from geo4d_ros.geometry.cameras import intrinsics
from geo4d_ros.geometry.transforms import make_transform

SENSORS = {'Depth': '/device_0/sensor_0/Depth_0', 'Color': '/device_0/sensor_1/Color_0'}
SIZES = {'Depth': (24, 32), 'Color': (48, 64)}
BASELINE = 0.015  # of the colour camera to the right of the depth camera [m]


def write_realsense(path, frames=6, unit=0.00025, without=()):
    """A flat wall at 1 m in front of both cameras, as the SDK lays its topics out."""
    types = get_typestore(Stores.ROS1_NOETIC)
    t = types.types

    def header(k):
        stamp = t['builtin_interfaces/msg/Time'](sec=100 + k // 4, nanosec=k % 4 * 250_000_000)
        return t['std_msgs/msg/Header'](seq=k, stamp=stamp, frame_id='0')

    with Writer(path) as bag:
        connections = {}

        def write(topic, message, stamp=0):
            if any(topic.startswith(w) for w in without):
                return
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, message.__msgtype__, typestore=types)
            bag.write(connections[topic], stamp, types.serialize_ros1(message, message.__msgtype__))

        write('/device_0/sensor_0/option/Depth_Units/value', t['std_msgs/msg/Float32'](data=unit))
        for kind, space in SENSORS.items():
            height, width = SIZES[kind]
            roi = t['sensor_msgs/msg/RegionOfInterest'](x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
            K = intrinsics(width, width, height)
            write(f'{space}/info/camera_info', t['sensor_msgs/msg/CameraInfo'](
                header=header(0), height=height, width=width, distortion_model='', D=np.zeros(5), K=K.ravel(),
                R=np.zeros(9), P=np.zeros(12), binning_x=0, binning_y=0, roi=roi))
            shift = t['geometry_msgs/msg/Vector3'](x=-BASELINE if kind == 'Color' else 0.0, y=0.0, z=0.0)
            write(f'{space}/tf/0', t['geometry_msgs/msg/Transform'](
                translation=shift, rotation=t['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0)))
        for k in range(frames):
            pixels = {'Depth': np.full(SIZES['Depth'], round(1 / unit), np.uint16),
                      'Color': np.full((*SIZES['Color'], 3), 10 * k, np.uint8)}
            for kind, space in SENSORS.items():
                value = pixels[kind]
                write(f'{space}/image/data', t['sensor_msgs/msg/Image'](
                    header=header(k), height=value.shape[0], width=value.shape[1],
                    encoding='mono16' if kind == 'Depth' else 'rgb8', is_bigendian=0, step=value[0].nbytes,
                    data=value.reshape(-1).view(np.uint8)), k * 250_000_000)


@pytest.fixture
def imported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(**changes):
        write_realsense(tmp_path / 'desk.bag', **changes)
        code = main(['import', 'desk.bag', '--output', 'in', '--task', 'Wipe the desk', '--size', '48x64'])
        return code, capsys.readouterr()
    return run


def test_a_realsense_bag_becomes_an_episode(imported, tmp_path):
    code, text = imported()
    assert code == 0, text.err
    episode = Episode.open(list_episodes(tmp_path / 'in')[0])
    assert (episode.task, episode.instruction) == ('wipe-the-desk', 'Wipe the desk')
    assert (episode.frames, episode.cameras) == (6, 1)
    depth = episode.read('depth')[0]
    assert (depth[:, :, 1:-1] == 10_000).mean() > 0.99  # 1 m in 0.1 mm, no holes although colour has twice the pixels
    assert episode.read('rgb')[0, 3].max() == 30
    assert 'missing: T_base_camera' in text.out and 'not trainable without' in text.out


def test_without_depth_or_its_place_it_says_so(imported, tmp_path):
    code, text = imported(without=('/device_0/sensor_0',))
    assert code == 0 and 'missing: depth' in text.out
    (tmp_path / 'desk.bag').unlink()
    code, text = imported(without=('/device_0/sensor_1/Color_0/tf',))
    assert code == 2 and 'how depth and colour lie to each other is missing' in text.err


def test_a_cut_bag_is_one_line(imported, tmp_path, capsys):
    imported()
    data = (tmp_path / 'desk.bag').read_bytes()
    (tmp_path / 'desk.bag').write_bytes(data[:len(data) // 2])
    assert main(['import', 'desk.bag', '--output', 'again', '--task', 'x']) == 2
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith('geo4d')]) == 1


def test_alignment_shifts_by_the_disparity_and_the_near_surface_wins():
    K = intrinsics(100.0, 40, 30)
    depth = np.full((30, 40), 2.0, np.float32)
    depth[10:20, 10:20] = 1.0
    moved = align_depth(depth, K, make_transform(t=np.array([0.05, 0, 0])), K, (30, 40))
    assert np.all(moved[10:20, 15:25] == 1.0)  # 100 px * 0.05 m / 1 m = 5 px; the wall moves by 2.5
    assert set(np.unique(moved)) <= {0.0, 1.0, 2.0}
