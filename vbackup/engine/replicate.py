"""Replicate: a restore point of one target becomes the same restore point in another.

It keeps its id, its time and all that it says of the machine; how its bytes are kept is the other target's own affair.
Only what is missing travels: what the disk shares with an earlier point that both targets have is not looked at, and of
the rest the other target stores what it does not know. Where the two share keys, nothing is decoded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from vbackup.api import (
    Block,
    Corrupt,
    DiskProgress,
    Exchanger,
    Extent,
    Interrupted,
    Point,
    PointDisk,
    Range,
    Target,
    Writer,
)
from vbackup.engine.copy import DiskCopy, unchanged_below
from vbackup.engine.parallel import Stop, side_by_side


class Common(NamedTuple):
    """A point that both targets have, as it is in each."""

    source: Point
    destination: Point


class Replica(NamedTuple):
    """A durable copy, and the bytes that were read for it: of disks, or encoded ones of the source's store."""

    point: Point
    read: int


class _SourceDamaged(Exception):  # noqa: N818 - control flow inside of this module
    """What is raised in place of `Corrupt` where it is not the base that is damaged."""

    def __init__(self, error: Corrupt) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True)
class Replicate:
    """How to copy points: from which target, into which, by which writer of that."""

    source: Target
    destination: Target
    writer: Writer
    stop: threading.Event
    report: Callable[[DiskProgress], None]

    def run(self, point: Point, common: Common | None) -> Replica:
        """Copy a point; ``common`` is an earlier one of the machine. Raises `Corrupt` naming what is damaged."""
        self.writer.check()
        if isinstance(self.destination, Exchanger) and self.destination.exchanges_with(self.source):
            base = common.destination if common else None
            return Replica(*self.destination.take_over(self.writer, self.source, point, base, self._reported))
        description = self.source.description(point)
        try:
            disks = self._disks(point, common)
        except _SourceDamaged as damaged:
            raise damaged.error from None
        files = {name: self.writer.file(self.source.file(point, name)) for name in point.files}
        kept = [disk.model_copy(update=_own(copy)) for disk, copy in zip(point.disks, disks, strict=True)]
        made = point.model_copy(update={"disks": tuple(kept), "files": files, "locked_until": None})
        self.writer.commit(made, description)
        return Replica(made, sum(copy.read for copy in disks))

    def _reported(self, progress: DiskProgress) -> None:
        if self.stop.is_set():
            raise Interrupted(f"stopped while disk {progress.key} was copied")
        self.report(progress)

    def _disks(self, point: Point, common: Common | None) -> list[PointDisk]:
        stop = Stop(self.stop)
        bases = {disk.key: disk for disk in common.destination.disks} if common else {}

        def copy(disk: PointDisk) -> Callable[[], PointDisk]:
            base = bases.get(disk.key)
            since = common.source if common and base else None
            source = _PointSource(self.source, point, disk, since, self.writer.block_size)
            if base is not None:  # its samples are where the machine wrote last: nothing lies about that here
                base = base.model_copy(update={"samples": ()})
            return DiskCopy(source, disk.format, base, self.writer, stop, self.report).run

        return side_by_side([copy(disk) for disk in point.disks], stop)


def _own(copy: PointDisk) -> dict[str, object]:
    return {"content": copy.content, "changed": copy.changed, "stored": copy.stored}


class _PointSource:
    """A disk of a stored point, as a `SourceDisk`."""

    full_reason = None

    def __init__(self, target: Target, point: Point, disk: PointDisk, since: Point | None, block: int) -> None:
        """``block`` is what the other target's blocks are, in bytes."""
        self.key = disk.key
        self.size = disk.size
        self._target = target
        self._point = point
        self._since = since
        self._asked: Corrupt | None = None
        before = next((each.size for each in since.disks if each.key == disk.key), 0) if since else 0
        self._comparable = disk.size if before == disk.size else min(before, disk.size) // block * block

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """See `SourceDisk.extents`. Raises `Corrupt` also when it is the earlier point that is damaged."""
        extents = self._target.extents(self._point, self.key, None if full else self._since)
        return unchanged_below(extents, self._comparable)

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        try:
            yield from self._target.read(self._point, self.key, self._noted(ranges))
        except Corrupt as error:
            if error is self._asked:
                raise
            raise _SourceDamaged(error) from error

    def _noted(self, ranges: Iterable[Range]) -> Iterator[Range]:
        """What finds out the ranges has troubles of its own, which are none of reading."""
        try:
            yield from ranges
        except Corrupt as error:
            self._asked = error
            raise
