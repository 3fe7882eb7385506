"""Cameras by the names that commands take: `realsense:SERIAL`, `sim` or `sim:TASK`, a recording's path."""

from __future__ import annotations

from pathlib import Path

from geo4d_ros.cameras.protocol import Camera
from geo4d_ros.errors import ConfigurationError, require

HELP = 'realsense:SERIAL, sim, sim:TASK, an RGB-D folder or a recording of librealsense (.db3, .bag)'


def open_cameras(names: list[str], sync: str = 'none') -> list[Camera]:
    """The cameras in order; of a rig or folder all. sync of RealSense: none, or cable (the first is the master).

    ConfigurationError, DatasetError or BackendUnavailableError in one line; what was opened before is closed.
    """
    require(bool(names), f'name at least one camera: {HELP}', ConfigurationError)
    cameras: list[Camera] = []
    try:
        for name in names:
            cameras += _open(name, 'none' if sync == 'none' else 'slave' if cameras else 'master')
    except Exception:
        close_cameras(cameras)
        raise
    return cameras


def close_cameras(cameras: list[Camera]) -> None:
    """Close all."""
    for camera in cameras:
        camera.close()


def _open(name: str, sync: str) -> list[Camera]:
    kind, _, rest = name.partition(':')
    if kind == 'realsense':
        from geo4d_ros.cameras.realsense import RealSenseCamera, RealSenseSettings

        require(bool(rest), 'write realsense:SERIAL; `geo4d cameras list` shows the serial numbers', ConfigurationError)
        return [RealSenseCamera.by_serial(rest, RealSenseSettings(sync=sync))]
    if kind == 'sim':
        from geo4d_ros.cameras.simulated import SimulatedRig

        return list(SimulatedRig(rest or 'apple').cameras)
    path = Path(name)
    if path.is_dir():
        from geo4d_ros.cameras.recording import FolderCamera

        folders = [path] if (path / 'camera.json').is_file() else sorted(p.parent for p in path.glob('*/camera.json'))
        require(bool(folders), f'{path} holds no <camera>/camera.json: not an RGB-D folder', ConfigurationError)
        return [FolderCamera(folder) for folder in folders]
    require(path.exists(), f'there is no camera {name!r}; write {HELP}', ConfigurationError)
    from geo4d_ros.cameras.realsense import RECORDINGS, RealSenseCamera

    require(path.suffix in RECORDINGS, f'{path} is no recording of a camera ({", ".join(RECORDINGS)}); '
            'for other files see `geo4d import`', ConfigurationError)
    return [RealSenseCamera.from_file(path)]
