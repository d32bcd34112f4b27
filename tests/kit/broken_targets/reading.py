"""Targets that are right but for one thing in how they are read."""

from __future__ import annotations

from tests.kit.naive import BLOCK, Naive
from vbackup.api import Block, Extent, Kind, NotFound


class MixesRanges(Naive):
    """Answers in the order of the disk."""

    def read(self, point, disk, ranges):
        yield from super().read(point, disk, sorted(ranges))


class WholeBlocks(Naive):
    """Gives the blocks that a range lies in."""

    def read(self, point, disk, ranges):
        data = self.disk(point, disk)
        for offset, length in ranges:
            start = offset - offset % BLOCK
            yield Block(start, data[start : offset + length])


class ListsRanges(Naive):
    """Takes all ranges before it gives anything; here: as many as it can bear."""

    def read(self, point, disk, ranges):
        taken = []
        for each in ranges:
            taken.append(each)
            assert len(taken) < 10_000, "there is no more memory"
        yield from super().read(point, disk, taken)


class CallsZero(Naive):
    """A block is zeros when its first byte is."""

    def extents(self, point, disk, since=None):
        for extent in super().extents(point, disk):
            yield extent._replace(kind=Kind.ZERO) if extent.length < BLOCK else extent


class Gaps(Naive):
    def extents(self, point, disk, since=None):
        yield from (extent for extent in super().extents(point, disk) if extent.kind is Kind.DATA)


class UnchangedByDefault(Naive):
    """Whatever is compared is unchanged."""

    def extents(self, point, disk, since=None):
        size = len(self.disk(point, disk))
        if since is None or not size:
            yield from super().extents(point, disk)
        else:
            yield Extent(0, size, Kind.UNCHANGED)


class EmptyForTheMissing(Naive):
    """What is not there has no bytes."""

    def disk(self, point, key):
        try:
            return super().disk(point, key)
        except NotFound:
            return b""


class KeyErrors(Naive):
    def file(self, point, name):
        return self.load(point.files[name])
