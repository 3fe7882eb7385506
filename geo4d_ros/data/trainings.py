"""Which arrays of an episode which training needs, so that a recording says what can be trained on it."""

from __future__ import annotations

from collections.abc import Collection

from geo4d_ros.data.episodes import SCHEMA
from geo4d_ros.data.recordings import Recording

# What is trained -> arrays beyond `episodes.ALWAYS` it needs, and the least number of cameras.
TRAININGS: dict[str, tuple[tuple[str, ...], int]] = {
    'RGB and pointmap video (geo4d train with a config of the U-Net)': (('depth', 'K', 'T_base_camera'), 2),
    'the same with gripper masks and motion gate': (('depth', 'K', 'T_base_camera', 'labels'), 2),
    'the same with the state stream': (('depth', 'K', 'T_base_camera', 'T_base_gripper', 'opening'), 2),
    'the small two-view model (config/train/sim_small.yaml)': (tuple(SCHEMA), 2),
}
# How to mend what is missing.
REMEDIES = {
    'depth': 'record depth aligned to colour',
    'K': 'record camera_info, or give --calibration',
    'T_base_camera': 'record /tf_static with the cameras, or give --calibration; `geo4d calibrate` measures it',
    'T_base_gripper': 'record /tf, or give --base-frame and --gripper-frame',
    'joints': 'record /joint_states',
    'opening': 'record the gripper in /joint_states and name its joints by --gripper-joints',
    'opening_command': 'record the commanded opening as joint gripper_opening in /joint_commands',
    'labels': 'no sensor gives them: they come from simulation, a segmenter or the robot drawn into the picture',
    'object_pose': 'no sensor gives it: only simulation knows it',
}


def missing_of(recording: Recording) -> tuple[str, ...]:
    """The arrays that an episode of the recording will lack, in the order of `REMEDIES`."""
    of_cameras = ('depth', 'K', 'T_base_camera', 'labels')
    return tuple(name for name in REMEDIES if any(
        getattr(part, name) is None for part in (recording.cameras if name in of_cameras else (recording,))))


def trainable(missing: Collection[str], cameras: int) -> dict[str, tuple[str, ...]]:
    """What can be trained -> what is lacking for it, () where nothing is."""
    found = {}
    for name, (needed, least) in TRAININGS.items():
        lacking = tuple(array for array in needed if array in missing)
        found[name] = (*lacking, 'a second camera') if cameras < least else lacking
    return found
