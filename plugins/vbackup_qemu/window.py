"""How requests are kept in flight: bounded in number and in bytes, and cut to what a server takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from vbackup.api import Buffer, Run

MAX_IN_FLIGHT = 16 << 20
"""Bytes of requests under way on one connection."""
MAX_WRITE = 4 << 20
MAX_ZERO = 1 << 30
_JOINED = 1 << 20
"""Bytes that make a request worth its while."""

_ZEROS = bytes(1 << 20)

T = TypeVar("T")


class Window(Generic[T]):
    """Commands under way, oldest first: at most ``depth`` of them and ``most`` bytes, but always one."""

    def __init__(self, depth: int, most: int = MAX_IN_FLIGHT) -> None:
        self._depth = depth
        self._most = most
        self._items: deque[tuple[int, int, T]] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._items)

    def is_full(self, size: int) -> bool:
        """Whether a command of ``size`` bytes must wait."""
        return bool(self._items) and (len(self._items) >= self._depth or self._bytes + size > self._most)

    def push(self, cookie: int, size: int, item: T) -> None:
        """Add the newest command."""
        self._items.append((cookie, size, item))
        self._bytes += size

    def cookies(self) -> list[int]:
        """Return the commands that were not taken out."""
        return [cookie for cookie, _, _ in self._items]

    def pop(self) -> tuple[int, T]:
        """Take out the oldest command."""
        cookie, size, item = self._items.popleft()
        self._bytes -= size
        return cookie, item


def joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Join small runs of data: a request costs a server more than the copying does here."""
    parts: list[Buffer] = []
    start = end = 0
    for run in runs:
        if parts and (run.data is None or run.offset != end or end - start >= _JOINED):
            yield Run(start, end - start, parts[0] if len(parts) == 1 else b"".join(parts))
            parts = []
        if run.data is None:
            yield run
            continue
        start, end = (start if parts else run.offset), run.offset + run.length
        parts.append(run.data)
    if parts:
        yield Run(start, end - start, parts[0] if len(parts) == 1 else b"".join(parts))


def pieces(runs: Iterable[Run], *, skip_zeros: bool, zeros_as_data: bool) -> Iterator[Run]:
    """Cut runs to what one request may carry; zeros are left out, or made data, on demand."""
    for run in runs:
        if run.data is None and skip_zeros:
            continue
        step = MAX_WRITE if run.data is not None else len(_ZEROS) if zeros_as_data else MAX_ZERO
        if run.length <= step and (run.data is not None or not zeros_as_data):
            yield run
            continue
        view = None if run.data is None else memoryview(run.data)
        for start in range(0, run.length, step):
            length = min(step, run.length - start)
            if view is not None:
                yield Run(run.offset + start, length, view[start : start + length])
            else:
                yield Run(run.offset + start, length, memoryview(_ZEROS)[:length] if zeros_as_data else None)
