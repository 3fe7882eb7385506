"""Random access to recorded messages of either ROS through `rosbags`, which needs no ROS."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from geo4d_ros.data.recordings import ImageStream
from geo4d_ros.errors import BackendUnavailableError, DatasetError, Geo4dError


@contextmanager
def reading(source: Path) -> Iterator[None]:
    """Whatever a damaged bag makes the library raise becomes a DatasetError of one line."""
    try:
        yield
    except Geo4dError:
        raise
    except Exception as error:  # rosbags and its codecs raise many types; all of them mean damage here
        text = ' '.join(str(error).split())[:160] or type(error).__name__
        raise DatasetError(f'{source} cannot be read as a bag ({text}); record or copy it again') from error


class BagFile:
    """One bag, open for as long as the context lasts: its topics, their messages, and picture streams over them."""

    def __init__(self, source: Path) -> None:
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise BackendUnavailableError('reading bags needs the package rosbags: pip install rosbags') from error
        self.source = source
        with reading(source):
            self._bag = AnyReader([source], default_typestore=get_typestore(Stores.ROS2_JAZZY))
            self._bag.open()
            self.types = {c.topic: c.msgtype for c in self._bag.connections}
            self.silent = {c.topic for c in self._bag.connections if c.msgcount == 0}  # announced, and nothing came
            storage = getattr(self._bag.readers[0], 'storage', None)  # ROS 1 has none, a bare file no custom data
            self.custom: dict[str, str] = dict(getattr(getattr(storage, 'metadata', None), 'custom', None) or {})

    def __enter__(self) -> BagFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._bag.close()

    def _raw(self, topics: Sequence[str]) -> Iterator[tuple[Any, int, Any]]:
        wanted = [c for c in self._bag.connections if c.topic in topics]
        with reading(self.source):
            yield from self._bag.messages(wanted) if wanted else ()

    def _read(self, connection: Any, raw: Any) -> Any:
        with reading(self.source):
            return self._bag.deserialize(raw, connection.msgtype)

    def messages(self, topics: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
        """(topic, time of recording [ns], message) of the topics, in order of recording."""
        for connection, stamp, raw in self._raw(topics):
            yield connection.topic, stamp, self._read(connection, raw)

    def pictures(self, topic: str, decode: Callable[[Any], np.ndarray]) -> ImageStream:
        """The topic's pictures by the stamps of their headers."""
        stamps = np.array([self._header_stamp(raw) for _, _, raw in self._raw([topic])], np.int64)
        stamps, ordinals = np.unique(stamps, return_index=True)  # a picture that came twice counts once

        def load(indices: Sequence[int]) -> Iterator[np.ndarray]:
            place = {int(ordinals[i]): i for i in indices}
            ready: dict[int, np.ndarray] = {}
            waiting = list(indices)[::-1]
            for k, (connection, _, raw) in enumerate(self._raw([topic])):
                if k in place:
                    ready[place[k]] = decode(self._read(connection, raw))
                while waiting and waiting[-1] in ready:
                    yield ready.pop(waiting.pop())
                if not waiting:
                    return

        return ImageStream(f'{self.source.name} {topic}', stamps, load)

    def _header_stamp(self, raw: bytes | memoryview) -> int:
        """Stamp of a message that begins with a header, without decoding its pixels."""
        if self._bag.is2:
            sec, nanosec = struct.unpack_from('<iI' if raw[1] & 1 else '>iI', raw, 4)
        else:
            sec, nanosec = struct.unpack_from('<II', raw, 4)
        return sec * 1_000_000_000 + nanosec


def message_stamp(message: Any) -> int:
    """Nanoseconds of a header stamp of either ROS."""
    stamp = message.header.stamp
    return stamp.sec * 1_000_000_000 + stamp.nanosec
