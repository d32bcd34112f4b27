"""The classes of one role, among them those of plugins that wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping


class Classes(Mapping[str, type]):
    """Classes by name. All names are there from the start; a class that waits is made when it is first looked up.

    It is a `KeyError` then if its plugin turns out to be broken.
    """

    def __init__(self) -> None:
        self._made: dict[str, type] = {}
        self._makers: dict[str, Callable[[], None]] = {}

    def add(self, classes: Mapping[str, type]) -> None:
        """Take in what a plugin has registered."""
        self._made.update(classes)

    def add_later(self, name: str, make: Callable[[], None]) -> None:
        """Take in a name; ``make`` adds its class, or raises."""
        self._makers[name] = make

    def drop(self, names: Iterable[str]) -> None:
        """Forget names whose classes cannot be made."""
        for name in names:
            self._makers.pop(name, None)

    def __getitem__(self, name: str) -> type:
        if name not in self._made and name in self._makers:
            self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._made or name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter({**self._makers, **self._made})

    def __len__(self) -> int:
        return len(self._makers.keys() | self._made.keys())
