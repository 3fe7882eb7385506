"""Tells one publisher of a topic from two, by the number that each gives to its messages."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable

TWO_SECONDS = 3.0  # two steps back within it are two publishers, one is a publisher that was restarted
MOST = 16  # sets of keys that are told apart


class Source:
    """One stream. A publisher counts its messages: a number that steps back is another publisher's."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._back = (-math.inf, -math.inf)
        self.heard = -math.inf

    def see(self, number: int | None, now: float) -> bool:
        """Take note of a message's number at steady time `now` [s]; whether it comes from a fresh publisher."""
        before, self._number, self.heard = self._number, number, now
        if number is None or before is None or number > before:
            return False
        self._back = (self._back[1], now)
        return True

    def doubled(self, now: float) -> bool:
        """Whether two publishers take turns."""
        return now - self._back[0] <= TWO_SECONDS


class Sources:
    """Streams of one topic by the set of keys (joint names) they carry; no two may carry the same key."""

    def __init__(self) -> None:
        self._of: dict[frozenset[Hashable], Source] = {}
        self._all, self._numbered = Source(), True

    def see(self, keys: Iterable[Hashable], number: int | None, now: float) -> bool:
        """`Source.see` of the stream that carries exactly `keys`; True as well for the first message of a set."""
        mine = frozenset(keys)
        self._all.see(number, now)
        self._numbered = number is not None
        if mine not in self._of:
            if len(self._of) >= MOST:
                del self._of[min(self._of, key=lambda k: self._of[k].heard)]
            self._of[mine] = Source()
            self._of[mine].see(number, now)
            return True
        return self._of[mine].see(number, now)

    def doubled(self, keys: Iterable[Hashable], now: float) -> bool:
        """Whether more than one publisher gave any of `keys` lately."""
        wanted = frozenset(keys)
        live = [k for k, source in self._of.items() if wanted & k and now - source.heard <= TWO_SECONDS]
        if any(self._of[k].doubled(now) for k in live):
            return True
        if self._numbered and not self._all.doubled(now):
            return False  # one publisher sends several sets
        return any(a & b & wanted for i, a in enumerate(live) for b in live[i + 1:])
