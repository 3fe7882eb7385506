"""Which cameras a node looks through."""

from __future__ import annotations

from dataclasses import dataclass

from geo4d_ros.errors import ConfigurationError, require
from geo4d_ros.ros.serve.parameters import parameter

MOST = 8


@dataclass(frozen=True)
class CameraParameters:
    """The cameras of the cell, the reference first."""

    reference_camera: str = parameter('camera1/camera1', 'Namespace of the camera whose frame all points are in.',
                                      read_only=True)
    second_camera: str = parameter('camera2/camera2', "Namespace of the second camera; '' for none.",
                                   read_only=True)
    cameras: tuple[str, ...] = parameter(('',), 'Namespaces of all cameras, the reference first, in place of '
                                         "reference_camera and second_camera; [''] = those two. What the model does "
                                         'not predict fills holes in the depth of what it does.', read_only=True)


def camera_names(p: CameraParameters) -> tuple[str, ...]:
    """Their namespaces; ConfigurationError says what is wrong with the list."""
    given = tuple(name for name in p.cameras if name)
    names = given or tuple(name for name in (p.reference_camera, p.second_camera) if name)
    require(1 <= len(names) <= MOST, f'cameras: a node looks through 1 to {MOST} cameras but {len(names)} are named',
            ConfigurationError)
    twice = sorted({name for name in names if [n.strip('/') for n in names].count(name.strip('/')) > 1})
    require(not twice, f'cameras: {", ".join(twice)} is named twice; give each camera a namespace of its own',
            ConfigurationError)
    return names
