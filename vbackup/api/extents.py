"""Extents: what a range of a disk holds, and the algebra that the data path needs of them.

All functions are lazy generators over ascending, non-overlapping input; nothing here grows with the disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from vbackup.api.errors import PluginError


class Kind(StrEnum):
    """What an extent holds."""

    DATA = "data"
    """Bytes that must be read."""
    ZERO = "zero"
    """Reads as zeros now, whatever it held before: it must be stored and restored as zeros."""
    UNCHANGED = "unchanged"
    """The same bytes as at the capture that the change marker was made by."""


class Extent(NamedTuple):
    """A range of a disk in bytes and its kind; ``length`` is above zero."""

    offset: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        """The first offset after this extent."""
        return self.offset + self.length


class Range(NamedTuple):
    """A range of a disk in bytes."""

    offset: int
    length: int


def cover(extents: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Yield ``extents`` and raise `PluginError` unless they cover ``[0, size)`` exactly once, ascending."""
    expected = 0
    for extent in extents:
        if extent.offset != expected or extent.length <= 0 or extent.end > size:
            raise PluginError(
                f"extent {extent.offset}+{extent.length} does not continue at {expected} of a disk of {size} bytes"
            )
        expected = extent.end
        yield extent
    if expected != size:
        raise PluginError(f"extents end at {expected} of a disk of {size} bytes")


def merge(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind."""
    last: Extent | None = None
    for extent in extents:
        if last is not None and last.kind is extent.kind and last.end == extent.offset:
            last = Extent(last.offset, last.length + extent.length, last.kind)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def overlay(upper: Iterable[Extent], lower: Iterable[Extent], size: int) -> Iterator[Extent]:
    """Where ``upper`` says `Kind.UNCHANGED` so does the result; elsewhere it is what ``lower`` says.

    With a dirty bitmap as ``upper`` (dirty = `Kind.DATA`) and the allocation map as ``lower`` this is "what changed,
    and of that, what is now zero". Both must cover ``[0, size)``.
    """
    lowers = cover(lower, size)
    low = next(lowers, None)
    for up in cover(upper, size):
        if up.kind is Kind.UNCHANGED:
            yield up
            while low is not None and low.end <= up.end:
                low = next(lowers, None)
            continue
        position = up.offset
        while position < up.end:
            while low is not None and low.end <= position:
                low = next(lowers, None)
            if low is None:  # cover() has already raised; this is for the type checker
                return
            stop = min(low.end, up.end)
            yield Extent(position, stop - position, low.kind)
            position = stop
    for _ in lowers:  # only cover() knows whether anything follows that must not
        pass


def align(extents: Iterable[Extent], block: int, size: int) -> Iterator[Extent]:
    """Round to whole blocks of ``block`` bytes (the last one may be short): a block of mixed kinds becomes data.

    Reading a little more than what changed is always right, since a capture shows the whole disk at its moment.
    The result is merged, covers ``[0, size)`` and every boundary but the last is a multiple of ``block``.
    """
    return merge(_aligned(merge(cover(extents, size)), block, size))


def _aligned(extents: Iterator[Extent], block: int, size: int) -> Iterator[Extent]:
    position = 0  # everything before it has been yielded; always a multiple of block
    for extent in extents:
        if extent.end <= position:
            continue
        if extent.offset > position:  # began inside the block at position, which is therefore mixed
            stop = min(position + block, size)
            yield Extent(position, stop - position, Kind.DATA)
            position = stop
        whole = size if extent.end == size else extent.end - extent.end % block
        if whole > position:
            yield Extent(position, whole - position, extent.kind)
            position = whole


def split(ranges: Iterable[Range], length: int) -> Iterator[Range]:
    """Cut each range at multiples of ``length`` bytes, so that no piece is longer than that."""
    for offset, remaining in ranges:
        position, end = offset, offset + remaining
        while position < end:
            stop = min(end, position - position % length + length)
            yield Range(position, stop - position)
            position = stop
