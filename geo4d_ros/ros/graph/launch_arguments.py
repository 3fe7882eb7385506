"""What the launch files check before anything starts; no rclpy and no launch, so that it can be tested anywhere."""

from __future__ import annotations

from collections.abc import Mapping

from geo4d_ros.errors import ConfigurationError, require
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


def check_checkpoint(name: str) -> None:
    """ConfigurationError names the shipped models when there is no such checkpoint; '' is left to the file."""
    if name:
        find_checkpoint(name)
