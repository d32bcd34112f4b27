"""Reading points back: any range, any disk, many at once, and what two points are known to share."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from vbackup.api import Extent, Kind, NotFound, Point, Range, Target, cover, split
from vbackup.testing.equal import assert_equal
from vbackup.testing.target_contract.base import OneTarget, Opens
from vbackup.testing.target_contract.looking import block_size, content, read
from vbackup.testing.target_contract.machines import READ, SIZE, Kept, keep, noise


class ReadingContract(OneTarget):
    """What readers of points get."""

    def test_any_range(self, target: Target, target_factory: Opens) -> None:
        """Of data and of zeros, within blocks and across them, in any order, overlapping, and again."""
        size = 2 * READ + 513
        data = noise(READ - 100, 1) + bytes(2 * block_size(target)) + noise(size, 2)
        data = data[:size]
        point = keep(target, {"vda": data}).point
        source = random.Random(5)  # noqa: S311 - no secret
        starts = [source.randrange(size) for _ in range(40)]
        ranges = [Range(start, source.randint(1, min(100_000, size - start))) for start in starts]
        ranges += [Range(0, 1), Range(size - 1, 1), Range(0, READ), Range(size - READ, READ), Range(0, 1), *ranges[:3]]
        for opened in (target, target_factory()):
            for (offset, length), (_, got) in zip(ranges, read(opened, point, "vda", ranges), strict=True):
                assert_equal(f"{length} bytes from {offset} on", got, data[offset : offset + length])
            assert read(opened, point, "vda", []) == []

    def test_ranges_are_asked_for_as_they_are_needed(self, target: Target) -> None:
        """A disk has millions of them: they are not listed before the first is read, and reading may end early."""
        point = keep(target, {"vda": noise(SIZE, 1)}).point
        asked = 0

        def endless() -> Range:
            nonlocal asked
            asked += 1
            return Range(0, SIZE)

        blocks = iter(target.read(point, "vda", iter(endless, None)))
        for _ in range(3):
            assert_equal("the whole disk", next(blocks).data, noise(SIZE, 1))
        assert asked >= 3
        if isinstance(blocks, Generator):
            blocks.close()
        assert_equal("the disk", content(target, point, "vda"), noise(SIZE, 1))

    def test_what_a_disk_holds(self, target: Target) -> None:
        """Extents cover the disk exactly, ascending, as data and zero; what is called zero is."""
        block = block_size(target)
        data = noise(block, 1) + bytes(3 * block) + noise(10, 2) + bytes(2 * block) + noise(5, 3)
        kept = keep(target, {"vda": data, "vdb": b"", "vdc": bytes(SIZE)})
        for key, disk in kept.disks.items():
            extents = list(cover(target.extents(kept.point, key), len(disk)))
            assert {extent.kind for extent in extents} <= {Kind.DATA, Kind.ZERO}
            for extent in extents:
                if extent.kind is Kind.ZERO:
                    assert not any(disk[extent.offset : extent.end]), extent

    def test_what_two_points_share(self, target: Target, target_factory: Opens) -> None:
        """What is called unchanged is the same in both, whichever is older, and however the disk was resized.

        It need not be all that is: a target that knows nothing calls nothing unchanged.
        """
        block = block_size(target)
        first = noise(5 * block + 700, 1)
        second = first[:block] + bytes(block) + first[2 * block :]
        third = second + noise(2 * block, 2)
        kept = [keep(target, {"vda": first, "vdb": first})]
        kept.append(keep(target, {"vda": second, "vdb": first}, kept[-1]))
        kept.append(keep(target, {"vda": third, "vdc": first}, kept[-1]))
        kept.append(keep(target, {"vda": third[: 2 * block + 100]}, kept[-1]))
        opened = target_factory()
        for one in kept:
            for other in kept:
                for key, disk in one.disks.items():
                    extents = cover(opened.extents(one.point, key, other.point), len(disk))
                    _assert_true(extents, disk, other.disks.get(key))

    def test_what_is_not_there(self, target: Target) -> None:
        """Disks and files that a point has not are `NotFound`, by name."""
        point = keep(target, {"vda": noise(1000, 1)}, files={"nvram": b"vars"}).point
        for key in ("vdb", "nvram"):
            with pytest.raises(NotFound, match=key):
                list(target.extents(point, key))
            with pytest.raises(NotFound, match=key):
                list(target.read(point, key, [Range(0, 1)]))
        for name in ("tpm", "vda"):
            with pytest.raises(NotFound, match=name):
                target.file(point, name)

    def test_many_readers_at_once(self, target: Target) -> None:
        """Of the same disk and of others, by one instance, while another run writes."""
        kept = [keep(target, {"vda": noise(SIZE, n), "vdb": noise(SIZE, -n)}, machine=f"web{n}") for n in range(1, 4)]
        everything = [(each, key) for each in kept for key in each.disks] * 2

        def look(what: tuple[Kept, str]) -> bool:
            each, key = what
            return content(target, each.point, key) == each.disks[key]

        with ThreadPoolExecutor(4) as pool:
            looks = pool.map(look, everything)
            keep(target, {"vda": noise(SIZE, 9)}, machine="meanwhile")
            assert all(looks)

    def test_a_point_is_all_that_is_needed(self, target: Target, target_factory: Opens) -> None:
        """As it was committed, as it is listed, or kept as JSON and read again: it is the same point."""
        kept = keep(target, {"vda": noise(SIZE, 1)}, files={"nvram": b"vars"})
        (listed,) = target.points()
        opened = target_factory()
        for point in (kept.point, listed, Point.model_validate_json(listed.model_dump_json())):
            ranges = list(split([Range(0, SIZE)], READ))
            assert_equal("the disk", b"".join(data for _, data in read(opened, point, "vda", ranges)), noise(SIZE, 1))
            assert bytes(opened.file(point, "nvram")) == b"vars"
            assert opened.description(point) == kept.description


def _assert_true(extents: Iterable[Extent], disk: bytes, other: bytes | None) -> None:
    """Assert that what is said of a disk, compared with another point's, is so."""
    for extent in extents:
        part = disk[extent.offset : extent.end]
        if extent.kind is Kind.ZERO:
            assert_equal(f"{extent}", part, bytes(len(part)))
        elif extent.kind is Kind.UNCHANGED:
            assert other is not None, f"{extent}: the other point has no such disk"
            both = max(0, min(extent.end, len(other)) - extent.offset)  # the framework looks no further, either
            assert_equal(f"{extent}", part[:both], other[extent.offset :][:both])
