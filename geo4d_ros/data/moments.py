"""One moment of a recording as an `Observation`."""

from __future__ import annotations

import numpy as np

from geo4d_ros.data.recordings import Recording
from geo4d_ros.errors import DatasetError, require
from geo4d_ros.geometry.transforms import invert, transform_points
from geo4d_ros.robots.inverse_kinematics import ArmKinematics
from geo4d_ros.types import Observation, RgbdFrame

MAX_SKEW_NS = 50_000_000
MAX_GAP_NS = 500_000_000


def observation_of(recording: Recording, seconds: float = 0.0, kinematics: ArmKinematics | None = None) -> Observation:
    """The look `seconds` after the first moment at which all cameras run; the first camera is the reference.

    Robot state goes with it as far as the recording has it: the gripper's pose where the reference is calibrated, its
    opening, and, with `kinematics` (`robots.inverse_kinematics`), the arm's points from the joints. Raises DatasetError
    for a camera without K or depth, a time outside the recording, or cameras further apart than 50 ms.
    """
    clock = recording.cameras[0].colour.stamps
    begin = max(int(camera.colour.stamps[0]) for camera in recording.cameras) - MAX_SKEW_NS
    begin = int(clock[np.searchsorted(clock, begin).clip(max=len(clock) - 1)])
    wanted, last = begin + round(seconds * 1e9), int(clock[-1])
    require(begin <= wanted <= last + MAX_SKEW_NS, f'{recording.source} has no look at {seconds:g} s: it lasts '
            f'{(last - begin) * 1e-9:.1f} s', DatasetError)
    stamp = int(clock[recording.cameras[0].colour.nearest(wanted)[0]])
    frames = []
    for camera in recording.cameras:
        lacks = [what for what, value in (('depth', camera.depth), ('K', camera.K)) if value is None]
        require(not lacks, f'{recording.source}: camera {camera.name} has no {" and no ".join(lacks)}', DatasetError)
        pictures = []
        for stream in (camera.colour, camera.depth):
            assert stream is not None
            index, off = stream.nearest(stamp)
            require(off <= MAX_SKEW_NS, f'{recording.source}: {stream.name} is {off * 1e-6:.0f} ms away from the '
                    'reference', DatasetError)
            pictures.append(next(iter(stream.load([index]))))
        frames.append(RgbdFrame(pictures[0], pictures[1].astype(np.float32), np.asarray(camera.K, np.float64), stamp,
                                f'{camera.name}_color_optical_frame'))
    return Observation(tuple(frames), **_robot_state(recording, stamp, kinematics))


def _robot_state(recording: Recording, stamp: int, kinematics: ArmKinematics | None) -> dict[str, np.ndarray | float]:
    state: dict[str, np.ndarray | float] = {}
    T_base_ref = recording.cameras[0].T_base_camera
    if recording.opening is not None:
        state['opening'] = float(recording.opening.at(stamp, MAX_GAP_NS))
    if T_base_ref is None:
        return state
    T_ref_base = invert(T_base_ref)
    if recording.T_base_gripper is not None:
        state['T_ref_gripper'] = T_ref_base @ recording.T_base_gripper.at(stamp, MAX_GAP_NS)
    if recording.joints is not None and kinematics is not None:
        points = kinematics.arm_points(recording.joints.at(stamp, MAX_GAP_NS))
        state['arm_points'] = transform_points(T_ref_base, points)
    return state
