"""Names and what they stand for: built-in ones, and those that installed packages add by entry points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from geo4d_ros.errors import ConfigurationError

T = TypeVar('T')


class Registry(Generic[T], Mapping[str, T]):
    """One group of names. A package adds to it with an entry point in `group`, without any change here.

    built_in is called once, when the registry is first read; built-in names cannot be replaced. One that is costly to
    import may be an `EntryPoint` ('module:name') itself. Entry points are loaded when they are asked for, so that a
    broken one hurts only who names it.
    """

    def __init__(self, group: str, noun: str, built_in: Callable[[], Mapping[str, T | EntryPoint]],
                 error: type[Exception] = ConfigurationError) -> None:
        self.group, self.noun, self.error = group, noun, error
        self._make = built_in
        self._known: dict[str, T | EntryPoint] | None = None
        self._added: dict[str, T] = {}

    def get(self, name: str, default: Any = None) -> T:
        """What the name stands for; an unknown one raises and lists what exists."""
        known = self._built_in()
        if name in known:
            value = known[name]
            return value.load() if isinstance(value, EntryPoint) else value
        if name not in self._added:
            self._added[name] = self._load(name)
        return self._added[name]

    def _load(self, name: str) -> T:
        points = {point.value: point for point in self._points() if point.name == name}
        if not points:
            raise self.error(f'unknown {self.noun} {name!r}; pick one of {", ".join(self)}')
        if len(points) > 1:
            raise self.error(f'{self.noun} {name!r} is claimed by {" and ".join(sorted(points))}; uninstall one')
        point, = points.values()
        try:
            return point.load()
        except Exception as error:
            raise self.error(f'{self.noun} {name!r} of {point.value} cannot be loaded ({error}); mend or '
                             'uninstall that package') from error

    def add(self, name: str, value: T) -> None:
        """Add a name in this process only: for tests and notebooks; packages use an entry point."""
        if name in self._built_in():
            raise self.error(f'{self.noun} {name!r} is built in and cannot be replaced')
        self._added[name] = value

    def remove(self, name: str) -> None:
        """Take back what `add` put there."""
        self._added.pop(name, None)

    def __getitem__(self, name: str) -> T:
        return self.get(name)

    def __iter__(self) -> Iterator[str]:
        names = [*self._built_in(), *self._added, *(point.name for point in self._points())]
        return iter(dict.fromkeys(names))

    def others(self) -> list[str]:
        """The names that are not built in."""
        return [name for name in self if name not in self._built_in()]

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in list(iter(self))

    def _points(self) -> Iterator[EntryPoint]:
        yield from entry_points(group=self.group)

    def _built_in(self) -> Mapping[str, T | EntryPoint]:
        if self._known is None:
            self._known = dict(self._make())
        return self._known


def references(group: str, places: Mapping[str, str]) -> dict[str, EntryPoint]:
    """Built-in values by 'module:name', imported when they are asked for."""
    return {name: EntryPoint(name, place, group) for name, place in places.items()}
