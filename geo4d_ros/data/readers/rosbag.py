"""rosbag2 recordings (MCAP or sqlite3, a folder or the bare file) of cameras that speak realsense-ros names.

Per camera `<name>/color/image_raw`, `<name>/aligned_depth_to_color/image_raw` (also compressed),
`<name>/color/camera_info`; `/tf`, `/tf_static` and `/joint_states` where they were recorded. Ours beyond the standard:
a joint `gripper_opening` [m] in `/joint_states` and `/joint_commands`, `<name>/segmentation/image_raw` (mono8) and a
frame `object`, as `geo4d export bag` writes them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.data.readers.bag_file import BagFile, message_stamp, reading
from geo4d_ros.data.readers.ros_images import distortion, read_colour, read_depth, read_intrinsics, read_labels
from geo4d_ros.data.readers.transform_tree import TransformTree
from geo4d_ros.data.recordings import (
    CameraRecording,
    ImportOptions,
    Recording,
    StateTrack,
    calibrated,
    chosen_cameras,
)
from geo4d_ros.geometry.transforms import from_quaternion

COLOUR, DEPTH, INFO = '/color/image_raw', '/aligned_depth_to_color/image_raw', '/color/camera_info'
LABELS = '/segmentation/image_raw'
OPENING_JOINT, OBJECT_FRAME = 'gripper_opening', 'object'
STATES, COMMANDS, TF, TF_STATIC = '/joint_states', '/joint_commands', '/tf', '/tf_static'
_GAP_NS = 500_000_000


class Rosbag2Reader:
    """One bag is one demonstration."""

    name = 'rosbag2'

    def accepts(self, source: Path) -> bool:
        """A folder with metadata.yaml, or a file of either storage."""
        return (source / 'metadata.yaml').is_file() or source.suffix in ('.mcap', '.db3')

    def read(self, source: Path, options: ImportOptions) -> Iterator[Recording]:
        """The recording; cameras without calibration and robots without transforms are left without."""
        with BagFile(source) as bag:
            yield self._recording(bag, source, options)

    def _recording(self, bag: BagFile, source: Path, options: ImportOptions) -> Recording:
        notes: list[str] = []
        states = _States(bag, options)
        names = {_camera_name(t): t[:t.index(COLOUR)] for t in bag.types
                 if t.removesuffix('/compressed').endswith(COLOUR)}
        cameras = tuple(calibrated(_camera(bag, name, names[name], states.tree, options, notes), options)
                        for name in chosen_cameras(list(names), options, str(source)))
        joint_names, joints = states.arm()
        opening = states.opening(notes)
        with reading(source):
            attributes = json.loads(bag.custom.get('geo4d', '{}'))
        return Recording(
            str(source), cameras, joints, joint_names, states.tree.track(options.base_frame, options.gripper_frame),
            opening, states.command(), states.tree.track(options.base_frame, OBJECT_FRAME),
            attributes.pop('task', None), attributes, tuple(notes))


def _camera_name(topic: str) -> str:
    """'/camera1/camera1/color/image_raw' is camera1, as realsense-ros names it twice."""
    parts = topic[:topic.index(COLOUR)].strip('/').split('/')
    return parts[0] if len(parts) == 2 and parts[0] == parts[1] else '_'.join(parts)


def _camera(bag: BagFile, name: str, space: str, tree: TransformTree, options: ImportOptions,
            notes: list[str]) -> CameraRecording:
    known = options.calibration.get(name)
    unit = known.depth_unit_m if known else None
    colour = space + COLOUR if space + COLOUR in bag.types else f'{space}{COLOUR}/compressed'
    depth = next((t for t in (space + DEPTH, f'{space}{DEPTH}/compressedDepth') if t in bag.types), None)
    if depth is None and any(t.startswith(f'{space}/depth/') for t in bag.types):
        notes.append(f'{name}: depth was recorded but not aligned to colour; record aligned_depth_to_color')
    frame, K = None, None
    for _, _, message in bag.messages([space + INFO]):
        frame, K = message.header.frame_id, read_intrinsics(message)
        if distortion(message) > 1e-6:
            notes.append(f'{name}: the lens distortion in camera_info is not taken out')
        break
    T = None if frame is None else tree.static(options.base_frame, frame.lstrip('/'))
    labels = space + LABELS
    return CameraRecording(
        name, bag.pictures(colour, read_colour),
        None if depth is None else bag.pictures(depth, lambda message: read_depth(message, unit)),
        bag.pictures(labels, read_labels) if labels in bag.types and labels not in bag.silent else None, K, T)


class _States:
    """Joints and transforms of a bag."""

    def __init__(self, bag: BagFile, options: ImportOptions) -> None:
        self.tree, self._options = TransformTree(), options
        self._measured: dict[str, dict[int, float]] = defaultdict(dict)
        self._commanded: dict[str, dict[int, float]] = defaultdict(dict)
        for topic, _, message in bag.messages([STATES, COMMANDS, TF, TF_STATIC]):
            if topic in (TF, TF_STATIC):
                for t in message.transforms:
                    self.tree.add(t.header.frame_id, t.child_frame_id, message_stamp(t), _matrix(t.transform),
                                  topic == TF_STATIC)
            else:
                into = self._measured if topic == STATES else self._commanded
                for name, value in zip(message.name, message.position, strict=False):
                    into[name][message_stamp(message)] = float(value)

    def arm(self) -> tuple[tuple[str, ...], StateTrack | None]:
        """Names and positions of all joints that are not the gripper's."""
        gripper = {*self._options.gripper_joints, OPENING_JOINT}
        names = [name for name in self._measured if name not in gripper]
        return tuple(names), _together('joint states', self._measured, names)

    def opening(self, notes: list[str]) -> StateTrack | None:
        """[m], named so in the bag or from the gripper's joints."""
        if OPENING_JOINT in self._measured:
            track = _together('opening', self._measured, [OPENING_JOINT])
            return track and StateTrack('opening', track.stamps, track.values[:, 0])
        wanted = list(self._options.gripper_joints)
        absent = [name for name in wanted if name not in self._measured]
        if absent or not wanted:
            notes.append(f'no joint {", ".join(absent) or "of the gripper"} in {STATES}; name them by --gripper-joints')
            return None
        track = _together('gripper joints', self._measured, wanted)
        return track and StateTrack('opening', track.stamps, self._options.opening_offset
                                    + self._options.opening_scale * track.values.sum(1))

    def command(self) -> StateTrack | None:
        """The commanded opening [m]."""
        track = _together('commanded opening', self._commanded, [OPENING_JOINT])
        return track and StateTrack('commanded opening', track.stamps, track.values[:, 0])


def _together(what: str, samples: dict[str, dict[int, float]], names: list[str]) -> StateTrack | None:
    """Joints that may come in different messages, at the stamps of the first one."""
    if not names or any(name not in samples for name in names):
        return None
    tracks = []
    for name in names:
        stamps = np.array(sorted(samples[name]), np.int64)
        tracks.append(StateTrack(f'{what} {name}', stamps, np.array([samples[name][int(s)] for s in stamps])))
    begin, end = max(int(t.stamps[0]) for t in tracks), min(int(t.stamps[-1]) for t in tracks)
    stamps = tracks[0].stamps[(tracks[0].stamps >= begin) & (tracks[0].stamps <= end)]
    values = [[float(track.at(int(stamp), _GAP_NS)) for track in tracks] for stamp in stamps]
    return StateTrack(what, stamps, np.array(values)) if values else None


def _matrix(transform: Any) -> np.ndarray:
    q, t = transform.rotation, transform.translation
    return from_quaternion(np.array([q.x, q.y, q.z, q.w]), np.array([t.x, t.y, t.z]))
