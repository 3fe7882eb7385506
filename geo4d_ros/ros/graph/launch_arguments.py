"""What the launch files check before anything starts; no rclpy and no launch, so that it can be tested anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.geometry.transforms import check_transform, pose_to_quaternion
from geo4d_ros.resources import find_checkpoint


def check_cameras(value: Mapping[str, str]) -> None:
    """Two RealSense drivers need to be told which camera each of them is; ConfigurationError says what is missing.

    value: the launch arguments reference_camera, second_camera, reference_serial, second_serial.
    """
    names = {which: value[f'{which}_camera'] for which in ('reference', 'second')}
    serials = {which: value[f'{which}_serial'].strip().lstrip('_') for which in names}
    for which, name in names.items():
        require(len(name.strip('/').split('/')) == 2, f'{which}_camera should be "/namespace/name" but is {name!r}',
                ConfigurationError)
    require(names['reference'] != names['second'], f'reference_camera and second_camera are both '
            f'{names["reference"]!r}; give each camera a namespace of its own', ConfigurationError)
    missing = [f'{which}_serial' for which, serial in serials.items() if not serial]
    require(not missing, f'two cameras need their serial numbers, or each driver takes whichever it finds first: set '
            f'{" and ".join(missing)} (rs-enumerate-devices lists them)', ConfigurationError)
    require(serials['reference'] != serials['second'], f'reference_serial and second_serial are both '
            f'{serials["reference"]!r}: one camera cannot be two', ConfigurationError)


def calibrated_pose(path: str, camera: str) -> str:
    """The camera's pose in a file of `geo4d calibrate`, as "x y z qx qy qz qw"; camera: its namespace and name.

    ConfigurationError for a file that is none, or that lacks the camera.
    """
    parts = camera.strip('/').split('/')
    name = parts[0] if len(set(parts)) == 1 else '_'.join(parts)  # as readers of bags name cameras
    try:
        known = json.loads(Path(path).read_text())
        T = np.array(known[name]['T_base_camera'], np.float64) if name in known else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f'{path} is no calibration of cameras ({error}); geo4d calibrate writes one'
                                 ) from error
    if T is None:
        raise ConfigurationError(f'{path} has no camera {name}, it has {", ".join(known)}; calibrate it, or give its '
                                 'pose')
    check_transform(f'{path}: T_base_camera of {name}', T)
    return ' '.join(f'{v:.6f}' for v in (*T[:3, 3], *pose_to_quaternion(T)))


def camera_list(text: str, simulated: bool) -> list[str]:
    """The launch argument `cameras`, 'camera1/camera1, camera2/camera2, ...'; ConfigurationError for what cannot be."""
    names = [name.strip() for name in text.split(',')]
    require(all(re.fullmatch(r'/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*', name) for name in names),
            f'cameras should be namespaces separated by commas, as camera1/camera1,camera2/camera2, but is {text!r}',
            ConfigurationError)
    require(not simulated, 'the simulated cell has two cameras: name them by reference_camera and second_camera',
            ConfigurationError)
    return names


def check_checkpoint(name: str) -> None:
    """ConfigurationError names the shipped models when there is no such checkpoint; '' is left to the file."""
    if name:
        find_checkpoint(name)


def check_namespace(namespace: str) -> None:
    """ConfigurationError unless `namespace` is '' or a ROS namespace such as 'cell2' or '/hall/cell2'."""
    require(re.fullmatch(r'(/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*)?', namespace) is not None and '__' not in namespace,
            f'namespace should be such as cell2 or hall/cell2 but is {namespace!r}', ConfigurationError)


def in_namespace(namespace: str, name: str) -> str:
    """A name in full, as a node in `namespace` ('' for none) resolves it: what starts with '/' stays."""
    return name if name.startswith('/') else '/'.join(['', *filter(None, [namespace.strip('/'), name])])


def cell_remappings(namespace: str, simulated: bool) -> list[tuple[str, str]]:
    """What keeps two cells on one graph apart besides their namespace: the names that ROS makes absolute.

    Transforms of a namespaced cell are its own (`/cell2/tf`, as Nav2 has it), so that both may call their frames alike;
    the clock is when it is simulated: two simulators have two times.
    """
    if not namespace:
        return []
    return [(f'/{name}', name) for name in ('tf', 'tf_static', *(['clock'] if simulated else []))]


def recorded(namespace: str) -> list[str]:
    """Arguments of `ros2 bag record` for all topics, or for those of one namespace."""
    if not namespace:
        return ['--all']
    return ['--regex', f'^{in_namespace("", namespace)}/.*|^/diagnostics$|^/rosout$']
