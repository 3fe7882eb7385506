"""Pairs the newest messages of several RGB-D cameras; no rclpy, so every case can be tested by hand.

Colour and depth of one camera belong together when their stamps are equal, or differ by some 2 ms (two exposures of
one trigger); cameras belong together when their stamps differ by at most a slop.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from geo4d_ros.reasons import Reason, Refusal

KINDS = ('colour', 'depth', 'info')
REMEMBERED = 1_000_000_000  # [ns] between a picture and a camera_info of depth that is still said of it


@dataclass(frozen=True)
class CameraMessages:
    """One camera at one stamp [ns] (of its colour): both images, the newest camera_info, that of depth if any."""

    stamp: int
    colour: Any
    depth: Any
    info: Any
    depth_info: Any = None


@dataclass(frozen=True)
class Match:
    """Messages of all cameras, the stamp of the reference, and the spread of stamps [s]."""

    cameras: tuple[CameraMessages, ...]
    skew: float

    @property
    def stamp(self) -> int:
        """Stamp of the reference camera [ns]."""
        return self.cameras[0].stamp


class RgbdPairing:
    """Keeps the newest messages of `names` cameras; the first is the reference. Thread-safe.

    within [s]: largest difference of the stamps of a camera's colour and depth. `starts` counts how often a camera or
    the clock began anew, by which whoever remembers pictures knows that they are of another run.
    """

    def __init__(self, names: tuple[str, ...], history: int = 8, within: float = 0.002) -> None:
        self.names, self.within, self.starts = names, int(within * 1e9), 0
        self._pairs: list[deque[CameraMessages]] = [deque(maxlen=history) for _ in names]
        self._images: list[dict[str, dict[int, Any]]] = [{'colour': {}, 'depth': {}} for _ in names]
        self._info: list[Any] = [None] * len(names)
        self._depth_info: list[tuple[int, Any]] = [(0, None)] * len(names)  # with their stamps
        self._history = history
        self.counts = [dict.fromkeys(KINDS, 0) for _ in names]
        self._changed = threading.Condition(threading.RLock())

    def add(self, camera: int, kind: str, stamp: int, message: Any) -> None:
        """Store one message; `kind` is one of KINDS, or 'depth_info'."""
        with self._changed:
            if kind == 'depth_info':
                self._depth_info[camera] = stamp, message
                return
            self.counts[camera][kind] += 1
            if kind == 'info':
                self._info[camera] = message
                self._changed.notify_all()
                return
            waiting = self._images[camera]
            others = waiting['depth' if kind == 'colour' else 'colour']
            at = min(others, key=lambda other: abs(other - stamp), default=None)
            if at is None or abs(at - stamp) > self.within:
                waiting[kind][stamp] = message
                while len(waiting[kind]) > self._history:
                    del waiting[kind][next(iter(waiting[kind]))]
                return
            other = others.pop(at)
            colour, depth = (message, other) if kind == 'colour' else (other, message)
            stamp = stamp if kind == 'colour' else at
            pairs = self._pairs[camera]
            if pairs and stamp < pairs[-1].stamp:
                pairs.clear()  # the clock jumped back: what was seen before belongs to another run
                self.starts += 1
            pairs.append(CameraMessages(stamp, colour, depth, None))
            self._changed.notify_all()

    def forget(self, camera: int | None = None) -> None:
        """A camera was restarted, or (None) the clock jumped: its pictures belong to another run."""
        with self._changed:
            for index in range(len(self.names)) if camera is None else (camera,):
                self._pairs[index].clear()
                self._images[index] = {'colour': {}, 'depth': {}}
            self.starts += 1

    def match(self, slop_s: float, not_before: int | None = None) -> Match | Refusal:
        """The newest combination within `slop_s`, none of it older than `not_before` [ns]; else why not."""
        with self._changed:
            missing = self._missing()
            if missing:
                return missing
            best = self._closest(slop_s, not_before)
            return best if best is not None else self._why_not(slop_s, not_before)

    def wait(self, slop_s: float, not_before: int | None, timeout_s: float) -> Match | Refusal:
        """`match`, given up to `timeout_s` of wall time to become possible."""
        with self._changed:
            self._changed.wait_for(lambda: isinstance(self.match(slop_s, not_before), Match), timeout_s)
            return self.match(slop_s, not_before)

    def _missing(self) -> Refusal | None:
        for name, pairs, info, counts in zip(self.names, self._pairs, self._info, self.counts, strict=True):
            absent = [kind for kind in KINDS if not counts[kind]]
            if absent:
                return Refusal(Reason.OBSERVATION_TIMEOUT, f'camera {name} sends no {", ".join(absent)}; check '
                               'that it runs, its namespace, and that depth is aligned to colour')
            if not pairs or info is None:
                return Refusal(Reason.OBSERVATION_TIMEOUT, f'colour and depth of camera {name} never have the same '
                               f'stamp (within {self.within * 1e-6:g} ms); enable its sync option')
        return None

    def _closest(self, slop_s: float, not_before: int | None) -> Match | None:
        for reference in reversed(self._pairs[0]):
            chosen = [reference]
            for pairs in self._pairs[1:]:
                chosen.append(min(pairs, key=lambda pair: abs(pair.stamp - reference.stamp)))
            stamps = [pair.stamp for pair in chosen]
            skew = (max(stamps) - min(stamps)) * 1e-9
            if skew <= slop_s and (not_before is None or min(stamps) >= not_before):
                return Match(tuple(self._complete(index, pair) for index, pair in enumerate(chosen)), skew)
        return None

    def _complete(self, camera: int, pair: CameraMessages) -> CameraMessages:
        stamp, depth_info = self._depth_info[camera]
        return replace(pair, info=self._info[camera],
                       depth_info=depth_info if abs(stamp - pair.stamp) <= REMEMBERED else None)

    def _why_not(self, slop_s: float, not_before: int | None) -> Refusal:
        newest = [pairs[-1].stamp for pairs in self._pairs]
        if not_before is not None and min(newest) < not_before:
            late = newest.index(min(newest))
            age = (not_before - newest[late]) * 1e-9
            return Refusal(Reason.OBSERVATION_STALE, f'the newest pair of camera {self.names[late]} was taken '
                           f'{age:.3f} s before what is needed', {'age_s': age})
        skew = min(max(stamps) - min(stamps) for stamps in
                   ([a.stamp, *[min((p.stamp for p in pairs), key=lambda s: abs(s - a.stamp))
                                for pairs in self._pairs[1:]]] for a in self._pairs[0])) * 1e-9
        return Refusal(Reason.OBSERVATION_SKEWED, f'the best pair is {skew * 1e3:.1f} ms apart, '
                       f'{slop_s * 1e3:.1f} ms allowed', {'skew_s': skew})
