"""Closes the loop on a robot arm with a geometry-aware 4D video generator.

What is named here is the public interface; it is imported when first asked for, so that what needs no torch loads none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geo4d_ros.errors import Geo4dError
    from geo4d_ros.types import GripperTrack, Observation, Plan, RgbdFrame, Video4D

__version__ = '0.1.0'
__all__ = ['Geo4dError', 'GripperTrack', 'Observation', 'Plan', 'RgbdFrame', 'Video4D', '__version__', 'create_tracker',
           'load_observation', 'open_generator']

_HOME = {'Geo4dError': 'errors', 'GripperTrack': 'types', 'Observation': 'types', 'Plan': 'types', 'RgbdFrame': 'types',
         'Video4D': 'types', 'create_tracker': 'tracking.factory', 'load_observation': 'observation_file',
         'open_generator': 'generation.loading'}


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(import_module(f'geo4d_ros.{_HOME[name]}'), name)
    raise AttributeError(f'module geo4d_ros has no attribute {name!r}; it has {__all__}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
