"""A disk of a capture: what it holds, and reading it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from vbackup.api import CaptureRequest, Extent, Hypervisor, Kind, Quiesce, Range, SourceDisk, cover
from vbackup.testing.equal import assert_equal
from vbackup.testing.hypervisor_contract.backups import Backups, assert_true_extents, contents, read
from vbackup.testing.hypervisor_contract.base import MIB, OWNER, GuestUnderTest, OneGuest, pattern

_SECTOR = 512
_NO_QUIESCE = CaptureRequest(OWNER, quiesce=Quiesce.NO)


class _Expected(Exception):  # noqa: N818 - an error of nobody's
    """What the tests leave reads with."""


class ReadContract(OneGuest):
    """`SourceDisk`: extents and reads."""

    def test_extents_cover_the_disk(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`SourceDisk.extents` ascend and cover the disk exactly; what they call zero reads as zeros."""
        now = contents(guest)
        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            for disk in capture.disks:
                assert_true_extents(disk, now[disk.key], None)

    def test_extents_are_lazy_and_come_again(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """They are an iterator, begin anew with each call, and may be left in the middle (`SourceDisk.extents`)."""
        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            for disk in capture.disks:
                begun = disk.extents(full=True)
                assert iter(begun) is begun
                next(begun)
                first = list(disk.extents(full=True))
                assert first == list(disk.extents(full=True))
                assert sum(extent.length for extent in first) == disk.size

    def test_full_means_data_and_zero_only(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """With ``full`` nothing is unchanged, whatever is known; the engine asks so when it has lost the base."""
        backups = Backups(hypervisor, guest)
        backups.run()
        now = contents(guest)
        with hypervisor.capture(guest.name, backups.request()) as capture:
            for disk in capture.disks:
                extents = list(disk.extents(full=True))
                assert not [extent for extent in extents if extent.kind is Kind.UNCHANGED]
                assert_true_extents(disk, now[disk.key], None)

    def test_zeros_are_told(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """What the guest has made zero reads as zeros, and is not what was there before (`Kind.ZERO`)."""
        key = guest.disks[0]
        guest.write(key, 0, pattern(9, MIB))
        backups = Backups(hypervisor, guest)
        backups.run()
        guest.zero(key, 0, MIB)
        backups.run()
        assert not any(backups.disks[key][:MIB])

    def test_reads_in_the_order_asked_for(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """One block for each range, in the same order, wherever on the disk they are (`SourceDisk.read`).

        Ranges are multiples of 512 bytes, but for the end of a disk that is none; zeros may be read, too, and the same
        range twice.
        """
        now, rng = contents(guest), random.Random(1)  # noqa: S311 - the same ranges each time
        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            for disk in capture.disks:
                ranges = [_anywhere(rng, disk.size) for _ in range(200)]
                ranges += [*ranges[:3], Range(0, min(4 * MIB, disk.size)), _end_of(disk)]
                for offset, data in read(disk, ranges):
                    assert_equal(f"{disk.key} at {offset}", data, now[disk.key][offset : offset + len(data)])
            capture.check()

    def test_blocks_stay_as_they_are(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """A block belongs to whoever got it: later ones, and the end of the capture, do not change it."""
        key = guest.disks[0]
        for number in range(8):
            guest.write(key, number * (MIB // 8), pattern(number, MIB // 8))
        now = contents(guest)[key]
        ranges = [Range(offset, 4096) for offset in range(0, MIB, 4096)]
        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            blocks = list(capture.disks[0].read(iter(ranges)))
        assert_equal(f"{key}, block by block", b"".join(bytes(block.data) for block in blocks), now[:MIB])

    def test_nothing_asked_nothing_read(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """No ranges, no blocks."""
        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            assert list(capture.disks[0].read([])) == []
            capture.check()

    def test_an_error_of_who_asks_comes_back(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """What ``ranges`` raises comes out of `SourceDisk.read` as it is, and the disk can be read again.

        The engine ends a read in this way when it sees that change tracking has lied.
        """
        now = contents(guest)

        def ranges() -> Iterator[Range]:
            yield Range(0, 4096)
            yield Range(4096, 4096)
            raise _Expected

        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            disk = capture.disks[0]
            with pytest.raises(_Expected):
                list(disk.read(ranges()))
            assert read(disk, [Range(4096, 4096)]) == [(4096, now[disk.key][4096:8192])]
            capture.check()

    def test_a_reader_that_goes_away(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """A read that is left in the middle disturbs neither the next one nor the end of the capture."""
        now = contents(guest)
        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            for disk in capture.disks:
                ranges = [Range(offset, 4096) for offset in range(0, MIB, 4096)]
                assert next(iter(disk.read(iter(ranges)))).offset == 0
                for offset, data in read(disk, ranges[::-1]):
                    assert_equal(f"{disk.key} at {offset}", data, now[disk.key][offset : offset + 4096])
            capture.check()

    def test_a_capture_that_was_read_is_whole(self, hypervisor: Hypervisor, guest: GuestUnderTest) -> None:
        """`Capture.check` has nothing to say of one that went well, however often it is asked."""
        with hypervisor.capture(guest.name, _NO_QUIESCE) as capture:
            for disk in capture.disks:
                list(_covered(disk))
            capture.check()
            capture.check()


def _covered(disk: SourceDisk) -> Iterator[Extent]:
    return cover(disk.extents(full=False), disk.size)


def _anywhere(rng: random.Random, size: int) -> Range:
    length = min(rng.choice([1, 1, 8, 128, 777]) * _SECTOR, size // _SECTOR * _SECTOR)
    return Range(rng.randrange((size - length) // _SECTOR + 1) * _SECTOR, length)


def _end_of(disk: SourceDisk) -> Range:
    start = max(disk.size - 1, 0) // _SECTOR * _SECTOR
    return Range(start, disk.size - start)
