"""What is in a target, all of it, compared with what was put there."""

from __future__ import annotations

from collections.abc import Sequence

from vbackup.api import Kind, Point, Range, Target, cover, split
from vbackup.testing.equal import assert_equal
from vbackup.testing.target_contract.machines import READ, Kept


def content(target: Target, point: Point, key: str) -> bytes:
    """Return a disk as a restore reads it: what holds data is read, the rest are zeros."""
    (disk,) = (disk for disk in point.disks if disk.key == key)
    data = bytearray(disk.size)
    extents = list(cover(target.extents(point, key), disk.size))
    assert {extent.kind for extent in extents} <= {Kind.DATA, Kind.ZERO}, "nothing was asked about what is unchanged"
    ranges = list(split((Range(e.offset, e.length) for e in extents if e.kind is Kind.DATA), READ))
    for offset, part in read(target, point, key, ranges):
        data[offset : offset + len(part)] = part
    return bytes(data)


def read(target: Target, point: Point, key: str, ranges: Sequence[Range]) -> list[tuple[int, bytes]]:
    """Read ranges; assert that each has its answer, in order."""
    blocks = [(block.offset, bytes(block.data)) for block in target.read(point, key, iter(ranges))]
    assert [(offset, len(data)) for offset, data in blocks] == ranges
    return blocks


def assert_holds(target: Target, *kept: Kept) -> None:
    """Assert that a target has these points and no others, oldest first, and all of each."""
    points = target.points()
    assert [as_made(point) for point in points] == [as_made(each.point) for each in in_order(kept)]
    assert target.damaged_points() == []
    for each, point in zip(in_order(kept), points, strict=True):
        assert_whole(target, each, point)


def assert_whole(target: Target, kept: Kept, point: Point | None = None) -> None:
    """Assert that all of a point comes out as it went in."""
    point = point or kept.point
    assert target.description(point) == kept.description
    for key, data in kept.disks.items():
        assert_equal(f"disk {key} of {point.machine}, point {point.sequence}", content(target, point, key), data)
    for name, data in kept.files.items():
        assert_equal(f"file {name} of {point.machine}, point {point.sequence}", target.file(point, name), data)


def in_order(kept: Sequence[Kept]) -> list[Kept]:
    """Return them oldest first."""
    return sorted(kept, key=lambda each: (each.point.time, each.point.id))


def as_made(point: Point) -> Point:
    """Return a point without what a target may add to it."""
    return point.model_copy(update={"locked_until": None})


def block_size(target: Target) -> int:
    """Return what disks are given in, in bytes."""
    with target.writer() as writer:
        return writer.block_size


def unheard(size: int) -> None:
    """Progress that nobody looks at."""
