"""What goes into a point comes out of it: disks and files of any size, from any buffer, built on any other."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from vbackup.api import DiskCounts, PointDisk, Target
from vbackup.testing.target_contract.base import OneTarget, Opens
from vbackup.testing.target_contract.looking import assert_holds, block_size, unheard
from vbackup.testing.target_contract.machines import (
    MIB,
    READ,
    SIZE,
    commit,
    keep,
    made,
    noise,
    write,
    write_disk,
)


class DiskContract(OneTarget):
    """What a writer makes of what it is given."""

    def test_blocks_suit_the_framework(self, target: Target) -> None:
        """Disks are read and given 4 MiB at a time: a whole number of blocks."""
        assert block_size(target) > 0
        assert READ % block_size(target) == 0

    @pytest.mark.parametrize("size", [0, 1, 512, 100_000, READ, 2 * READ + 513])
    def test_disks_of_any_size(self, target: Target, size: int) -> None:
        """From nothing to more than is given at once; one that is all zeros; and no disk at all."""
        kept = keep(target, {"vda": noise(size, 1), "vdb": bytes(size)})
        assert_holds(target, kept, keep(target, {}, machine="diskless"))

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(b"-" + data)[1:]])
    def test_any_buffer(self, target: Target, kind: type[memoryview]) -> None:
        """A disk's data comes as bytes, bytearray or memoryview, also as a part of something larger."""
        data = noise(READ, 1)
        with target.writer() as writer:
            disk = writer.disk(READ, None)
            disk.write(0, kind(data))
            vda = PointDisk(key="vda", size=READ, content=disk.finish()[0])
            kept = commit(writer, made([vda], {"vda": data}))
        assert_holds(target, kept)

    def test_zeros_are_zeros_however_they_come(self, target: Target) -> None:
        """As data or as such, over what the base has there and where it has nothing."""
        block = block_size(target)
        first = keep(target, {"vda": noise(4 * block, 1) + bytes(2 * block)})
        with target.writer() as writer:
            disk = writer.disk(6 * block, first.point.disks[0])
            disk.zero(0, block)
            disk.write(block, bytes(block))
            disk.unchanged(2 * block, 2 * block)
            disk.zero(4 * block, block)
            disk.write(5 * block, bytes(block))
            vda = PointDisk(key="vda", size=6 * block, content=disk.finish()[0])
            data = bytes(2 * block) + first.disks["vda"][2 * block :]
            second = commit(writer, made([vda], {"vda": data}, sequence=2))
        assert_holds(target, first, second)

    def test_points_are_built_on_points(self, target: Target, target_factory: Opens) -> None:
        """What is unchanged is the base's: of the point before, of a disk that has grown or shrunk, of an older point.

        Each is whole by itself, made in one run with its base or in another one.
        """
        block = block_size(target)
        first = noise(6 * block + 1000, 1)
        second = first[: 3 * block] + b"here" + first[3 * block + 4 :]
        third = second[: 3 * block] + bytes(block) + second[4 * block :]
        kept = [keep(target, {"vda": first})]
        with target.writer() as writer:
            for disk in (second, third):
                kept.append(commit(writer, write(writer, {"vda": disk}, kept[-1])))
        for disk in (third + noise(2 * block, 2), third[: 2 * block + 512]):
            kept.append(keep(target_factory(), {"vda": disk}, kept[-1]))
        kept.append(keep(target, {"vda": first + b"x"}, kept[0], sequence=9))
        assert_holds(target, *kept)
        assert target.verify(target.points(), unheard) == []

    def test_what_a_base_has_is_known(self, target: Target) -> None:
        """`DiskWriter.same` and `last_data` are how the framework finds out that change tracking was wrong."""
        block = block_size(target)
        data = noise(2 * block, 1) + bytes(2 * block) + noise(100, 3)
        base = keep(target, {"vda": data, "vdb": bytes(4 * block)})
        with target.writer() as writer:
            disk = writer.disk(len(data), base.point.disks[0])
            for offset in range(0, len(data), block):
                part = data[offset : offset + block]
                assert disk.same(offset, part)
                assert disk.same(offset, memoryview(part))
                assert not disk.same(offset, part[:-1] + bytes([part[-1] ^ 1]))
            assert disk.last_data(0, len(data)) == 4 * block
            assert disk.last_data(0, 4 * block) == block
            assert disk.last_data(0, block) == 0
            assert disk.last_data(2 * block, 2 * block) is None
            zeros = writer.disk(4 * block, base.point.disks[1])
            assert zeros.same(0, bytes(block))
            assert zeros.last_data(0, 4 * block) is None
            without = writer.disk(len(data), None)
            assert not without.same(0, data[:block])
            assert without.last_data(0, len(data)) is None

    def test_what_can_be_built_on(self, target: Target, target_factory: Opens) -> None:
        """A point that is there is; what never was has a problem, said as a phrase: the disk is read in full then."""
        base = keep(target, {"vda": noise(SIZE, 1)})
        with target_factory().writer() as writer:
            assert writer.base_problem(base.point.disks[0]) is None
            problem = writer.base_problem(PointDisk(key="vda", size=SIZE, content={}))
            assert problem
            assert isinstance(problem, str)

    def test_counts(self, target: Target) -> None:
        """In bytes, of the disk. What is as before counts as nothing; samples are of what is not."""
        block = block_size(target)
        data = noise(8 * block, 1)
        before = keep(target, {"vda": data})
        with target.writer() as writer:
            disk = writer.disk(len(data), before.point.disks[0])
            disk.unchanged(0, 3 * block)
            disk.write(3 * block, noise(block, 2))
            disk.zero(4 * block, block)
            disk.write(5 * block, data[5 * block : 6 * block])
            disk.unchanged(6 * block, 2 * block)
            with ThreadPoolExecutor(1) as another:
                assert isinstance(another.submit(disk.progress).result(), DiskCounts)
            _, counts = disk.finish()
        assert counts.changed == 2 * block
        assert counts.zero == block
        assert counts.stored >= 0
        assert 0 <= counts.duplicate <= block
        assert isinstance(counts.samples, tuple)
        assert set(counts.samples) <= {3 * block, 4 * block}

    def test_what_a_point_says_is_json(self, target: Target) -> None:
        """`PointDisk.content` and what `Writer.file` returns are kept in a point."""
        with target.writer() as writer:
            disk = write_disk(writer, "vda", noise(SIZE, 1))
            for each in (disk.content, writer.file(b"vars")):
                assert json.loads(json.dumps(each)) == each

    @pytest.mark.parametrize("size", [0, 1, 100_000, 5 * MIB])
    def test_small_files(self, target: Target, target_factory: Opens, size: int) -> None:
        """Several at once, also of the same bytes."""
        kept = keep(target, {}, files={"nvram": noise(size, 1), "tpm": noise(size, 2), "nvram.old": noise(size, 1)})
        again = keep(target, {}, kept, files={"nvram": noise(size, 1)})
        assert_holds(target_factory(), kept, again)
