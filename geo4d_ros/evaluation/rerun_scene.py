"""What was seen, predicted, tracked and planned as a Rerun recording (`rerun-sdk`, optional): live or as an .rrd file.

Everything is in the reference camera's optical frame, metres. Timelines: `cycle` (one look each) and `ahead`, seconds
into the prediction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.errors import BackendUnavailableError, ConfigurationError
from geo4d_ros.types import GripperTrack, Observation, Plan, TrackStatus, Video4D

VIEW_NAMES = ('reference', 'second')
STATUS_COLOURS = {TrackStatus.OK: (40, 170, 90), TrackStatus.DEGRADED: (230, 160, 30), TrackStatus.LOST: (200, 40, 40)}
ARM_COLOUR, PLAN_COLOUR = (90, 110, 140), (40, 110, 220)
AXIS_M = 0.05


def library() -> Any:
    """rerun; BackendUnavailableError with what to install where it cannot be imported."""
    try:
        import rerun
    except ImportError as error:
        raise BackendUnavailableError(f"the viewer is not installed ({error}); make viewer, or pip install "
                                      "'geo4d_ros[viewer]'") from error
    return rerun


class RerunScene:
    """Logs to a viewer (`path` None: one is started) or to an .rrd file; use as a context manager."""

    def __init__(self, path: Path | None = None, name: str = 'geo4d') -> None:
        self._rr = library()
        self._stream = self._rr.RecordingStream(name)
        try:
            if path is None:
                self._stream.spawn()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._stream.save(str(path))
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(f'cannot show or write {path or "the viewer"}: {error}; write a file with --out, '
                                     'open it elsewhere with `rerun FILE`') from error
        self._log('world', self._rr.ViewCoordinates.RDF, static=True)
        self._stream.send_blueprint(self._layout())

    def __enter__(self) -> RerunScene:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left."""
        self._stream.flush()
        self._stream.disconnect()

    def _layout(self) -> Any:
        """The scene in 3D, beside it what was seen and predicted, confidence and opening, and the verdicts."""
        b = self._rr.blueprint
        pictures = [b.Spatial2DView(name=f'{root}, {view}', origin=f'world/{root}/{view}', contents='$origin/rgb')
                    for root in ('seen', 'predicted') for view in VIEW_NAMES]
        below = b.Horizontal(*[b.TimeSeriesView(name=name, origin=name) for name in ('confidence', 'opening_mm')])
        # The predicted points are the scene; depth pictures would draw the room behind it, several times.
        left_out = [f'- $origin/{root}/{view}/depth' for root in ('seen', 'predicted') for view in VIEW_NAMES]
        scene = b.Spatial3DView(name='scene', origin='world', contents=['+ $origin/**', *left_out])
        return b.Blueprint(b.Horizontal(scene,
                                        b.Vertical(b.Grid(*pictures, grid_columns=2), below,
                                                   b.TextLogView(name='verdicts', origin='verdict'),
                                                   row_shares=[5, 2, 1]), column_shares=[5, 4]),
                           collapse_panels=True)

    def look(self, number: int, observation: Observation, T_ref_view: np.ndarray | None = None) -> None:
        """What the cameras saw: pictures, and in 3D where the views' poses are known; gripper and arm."""
        self._at(number, 0.0)
        poses = observation.T_ref_view if T_ref_view is None else T_ref_view
        for i, view in enumerate(observation.views):
            self._camera('seen', i, view.rgb, view.depth, view.K, None if poses is None else poses[i])
        if observation.T_ref_gripper is not None:
            self._pose('world/gripper', observation.T_ref_gripper)
        if observation.arm_points is not None:
            self._log('world/arm', self._rr.LineStrips3D([observation.arm_points], colors=[ARM_COLOUR], radii=0.012))

    def prediction(self, number: int, video: Video4D) -> None:
        """The predicted video of both views, frame by frame, as pictures and as one coloured cloud."""
        seconds = (video.stamps - video.stamps[0]) * 1e-9
        for frame in range(video.frames):
            self._at(number, float(seconds[frame]))
            for i in range(video.views):
                self._camera('predicted', i, video.rgb[i, frame], video.depth(i, frame), video.K[i],
                             video.T_ref_view[i])
            valid = video.valid[:, frame]
            self._log('world/predicted/points',
                      self._rr.Points3D(video.points[:, frame][valid], colors=video.rgb[:, frame][valid], radii=0.002))

    def track(self, number: int, track: GripperTrack, stamps: np.ndarray) -> None:
        """The tracked path, coloured by how far each pose is trusted; stamps (T+1,) [ns]."""
        self._at(number, 0.0)
        positions = track.T_ref_gripper[:, :3, 3]
        colours = [STATUS_COLOURS[status] for status in track.status]
        labels = [f'{status.value} {confidence:.2f}, {opening * 1e3:.0f} mm'
                  for status, confidence, opening in zip(track.status, track.confidence, track.opening, strict=True)]
        self._log('world/track/poses', self._rr.Points3D(positions, colors=colours, radii=0.006, labels=labels,
                                                         show_labels=False))
        self._log('world/track/path', self._rr.LineStrips3D([positions], colors=[ARM_COLOUR], radii=0.002))
        for i, T in enumerate(track.T_ref_gripper):
            self._at(number, float(stamps[i] - stamps[0]) * 1e-9)
            self._pose('world/track/gripper', T)
            self._log('opening_mm', self._rr.Scalars(float(track.opening[i] * 1e3)))
            self._log('confidence', self._rr.Scalars(float(track.confidence[i])))

    def plan(self, number: int, plan: Plan, T_base_ref: np.ndarray) -> None:
        """What may be executed; T_base_ref (4, 4) is the reference camera in the plan's frame."""
        self._at(number, 0.0)
        T = np.linalg.inv(T_base_ref) @ np.concatenate([plan.T_base_gripper_start[None], plan.T_base_gripper])
        self._log('world/plan', self._rr.LineStrips3D([T[:, :3, 3]], colors=[PLAN_COLOUR], radii=0.004))

    def verdict(self, number: int, text: str, good: bool) -> None:
        """What the gates or the loop said of this cycle."""
        self._at(number, 0.0)
        self._log('verdict', self._rr.TextLog(text, level='INFO' if good else 'WARN'))

    def _at(self, number: int, seconds: float) -> None:
        self._stream.set_time('cycle', sequence=number)
        self._stream.set_time('ahead', duration=seconds)

    def _camera(self, root: str, view: int, rgb: np.ndarray, depth: np.ndarray, K: np.ndarray,
                T_ref_view: np.ndarray | None) -> None:
        name = VIEW_NAMES[view] if view < len(VIEW_NAMES) else f'view{view + 1}'
        path = f'world/{root}/{name}' if T_ref_view is not None or view == 0 else f'{root}/{name}'
        if T_ref_view is not None:
            self._log(path, self._rr.Transform3D(translation=T_ref_view[:3, 3], mat3x3=T_ref_view[:3, :3]))
        height, width = depth.shape
        self._log(path, self._rr.Pinhole(image_from_camera=K, width=width, height=height, image_plane_distance=0.1))
        self._log(f'{path}/rgb', self._rr.Image(rgb).compress(jpeg_quality=90))
        self._log(f'{path}/depth', self._rr.DepthImage(np.clip(np.rint(depth * 1e3), 0, 65535).astype(np.uint16),
                                                       meter=1000.0))

    def _pose(self, path: str, T: np.ndarray) -> None:
        self._log(path, self._rr.Transform3D(translation=T[:3, 3], mat3x3=T[:3, :3]))
        ends = np.eye(3) * AXIS_M
        self._log(f'{path}/axes', self._rr.Arrows3D(origins=np.zeros((3, 3)), vectors=ends,
                                                    colors=[(220, 60, 60), (60, 180, 60), (60, 90, 220)]))

    def _log(self, path: str, what: Any, static: bool = False) -> None:
        self._stream.log(path, what, static=static)
