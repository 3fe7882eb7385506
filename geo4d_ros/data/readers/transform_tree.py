"""Coordinate frames of a recorded bag: edges over time, looked up along the tree."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from geo4d_ros.data.recordings import StateTrack
from geo4d_ros.errors import DatasetError, require


class TransformTree:
    """Static and moving edges; every frame has one parent, as in tf2."""

    def __init__(self) -> None:
        self._static: dict[str, tuple[str, np.ndarray]] = {}
        self._moving: dict[str, dict[int, tuple[str, np.ndarray]]] = defaultdict(dict)
        self._tracks: dict[str, tuple[str, StateTrack]] = {}

    def add(self, parent: str, child: str, stamp: int, T_parent_child: np.ndarray, static: bool) -> None:
        """One transform as it was published; a static one holds for the whole recording."""
        parent, child = parent.lstrip('/'), child.lstrip('/')
        if static:
            self._static[child] = (parent, T_parent_child)
        else:
            self._moving[child][stamp] = (parent, T_parent_child)
            self._tracks.pop(child, None)

    def frames(self) -> list[str]:
        """All frames that have a parent."""
        return sorted({*self._static, *self._moving})

    def chain(self, base: str, frame: str) -> list[str] | None:
        """Frames from `frame` up to just below `base`; None where they are not connected that way."""
        chain: list[str] = []
        while frame != base:
            parent = self._parent(frame)
            if parent is None or frame in chain:
                return None
            chain.append(frame)
            frame = parent
        return chain

    def _parent(self, frame: str) -> str | None:
        if frame in self._static:
            return self._static[frame][0]
        if frame in self._moving:
            return next(iter(self._moving[frame].values()))[0]
        return None

    def _track(self, frame: str) -> StateTrack:
        if frame not in self._tracks:
            edge = self._moving[frame]
            stamps = np.array(sorted(edge), np.int64)
            parents = {edge[int(s)][0] for s in stamps}
            require(len(parents) == 1, f'frame {frame} hangs below several frames: {", ".join(sorted(parents))}',
                    DatasetError)
            values = np.stack([edge[int(s)][1] for s in stamps])
            self._tracks[frame] = (parents.pop(), StateTrack(f'transform of {frame}', stamps, values))
        return self._tracks[frame][1]

    def static(self, base: str, frame: str) -> np.ndarray | None:
        """T_base_frame (4, 4) of a frame that never moves; None where it is unknown or moves."""
        chain = self.chain(base, frame)
        if chain is None or any(f not in self._static for f in chain):
            return None
        T = np.eye(4)
        for f in chain:
            T = self._static[f][1] @ T
        return T

    def track(self, base: str, frame: str, max_gap_ns: int = 500_000_000) -> StateTrack | None:
        """T_base_frame over time, at the stamps of its fastest moving edge; None where it is unknown."""
        chain = self.chain(base, frame)
        if chain is None:
            return None
        moving = [self._track(f) for f in chain if f not in self._static]
        if not moving:
            return None
        fastest = max(moving, key=lambda t: len(t.stamps))
        begin, end = max(int(t.stamps[0]) for t in moving), min(int(t.stamps[-1]) for t in moving)
        stamps = fastest.stamps[(fastest.stamps >= begin) & (fastest.stamps <= end)]
        values = []
        for stamp in stamps:
            T = np.eye(4)
            for f in chain:
                edge = self._static[f][1] if f in self._static else self._track(f).at(int(stamp), max_gap_ns)
                T = edge @ T
            values.append(T)
        return StateTrack(f'pose of {frame} in {base}', stamps, np.stack(values)) if values else None

