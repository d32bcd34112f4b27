"""Backups as the engine makes them, kept in memory and compared with the machine bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from vbackup.api import (
    Capture,
    CaptureRequest,
    Extent,
    Hypervisor,
    Kind,
    Marker,
    Quiesce,
    Range,
    SourceDisk,
    align,
    cover,
    split,
)
from vbackup.testing.equal import assert_equal
from vbackup.testing.hypervisor_contract.base import BLOCK, MIB, OWNER, GuestUnderTest


@dataclass(frozen=True)
class Seen:
    """What a capture said, by disk where that matters."""

    marker: Marker | None
    full_reasons: dict[str, str | None]
    unchanged: dict[str, int]
    """Bytes that were called unchanged."""

    @property
    def is_full(self) -> bool:
        """Whether nothing was known of any disk."""
        return all(self.full_reasons.values())


@dataclass
class Backups:
    """What a repository holds of a machine: the copies of its disks, and the marker of the newest."""

    hypervisor: Hypervisor
    guest: GuestUnderTest
    owner: str = OWNER
    disks: dict[str, bytes] = field(default_factory=dict)
    marker: Marker | None = None

    def request(self, **changes: Any) -> CaptureRequest:
        """Return the request for the next capture; the marker has been JSON meanwhile."""
        since = json.loads(json.dumps(self.marker))
        return CaptureRequest(**{"owner": self.owner, "since": since, "quiesce": Quiesce.NO, **changes})

    def run(self, *, commit: bool = True, **changes: Any) -> Seen:
        """Capture, compare every byte with the machine, and commit.

        Without ``commit`` it is a run that failed before its point was durable: nothing of it is kept.
        """
        now = contents(self.guest)
        with self.hypervisor.capture(self.guest.name, self.request(**changes)) as capture:
            copies, seen = self.copy(capture)
            for disk in capture.disks:
                assert_true_extents(disk, now[disk.key], self.base(disk.key))
        assert_same(copies, now)
        if commit:
            self.commit(seen, copies)
        return seen

    def base(self, key: str) -> bytes | None:
        """Return what is held of a disk, if the next capture may build on it."""
        return None if self.marker is None else self.disks.get(key)

    def copy(self, capture: Capture) -> tuple[dict[str, bytes], Seen]:
        """Copy an open capture, all disks at once, each by what changed; see `Capture.check`."""
        with ThreadPoolExecutor() as pool:
            work = {disk.key: pool.submit(copy_disk, disk, self.base(disk.key)) for disk in capture.disks}
            copied = {key: future.result() for key, future in work.items()}
        capture.check()
        reasons = {disk.key: disk.full_reason for disk in capture.disks}
        seen = Seen(capture.marker, reasons, {key: unchanged for key, (_, unchanged) in copied.items()})
        return {key: data for key, (data, _) in copied.items()}, seen

    def commit(self, seen: Seen, copies: Mapping[str, bytes]) -> None:
        """The copies are durable: they are the newest restore point from now on. The capture has ended by then."""
        self.disks, self.marker = dict(copies), seen.marker
        if seen.marker is not None:
            self.hypervisor.commit(self.guest.name, self.owner, json.loads(json.dumps(seen.marker)))


def contents(guest: GuestUnderTest) -> dict[str, bytes]:
    """Return what the machine's disks hold now."""
    return {key: guest.read(key) for key in guest.disks}


def copy_disk(disk: SourceDisk, base: bytes | None = None, *, full: bool = False) -> tuple[bytes, int]:
    """Return a disk's bytes and how many of them came from ``base``, as they were called unchanged."""
    extents = list(cover(disk.extents(full=full or base is None), disk.size))
    unchanged = sum(extent.length for extent in extents if extent.kind is Kind.UNCHANGED)
    if full or base is None or disk.full_reason is not None:
        assert not unchanged, f"{disk.key}: extents() says unchanged where only data and zero were asked for"
    copy = bytearray((base or b"")[: disk.size].ljust(disk.size, b"\xa5"))
    wanted: list[Range] = []
    for extent in align(extents, BLOCK, disk.size):
        if extent.kind is Kind.ZERO:
            copy[extent.offset : extent.end] = bytes(extent.length)
        elif extent.kind is Kind.DATA:
            wanted.append(Range(extent.offset, extent.length))
    for offset, data in read(disk, list(split(wanted, MIB))):
        copy[offset : offset + len(data)] = data
    return bytes(copy), unchanged


def read(disk: SourceDisk, ranges: list[Range]) -> list[tuple[int, bytes]]:
    """Read ranges; there must be one block for each, in their order."""
    blocks = [(block.offset, block.data) for block in disk.read(iter(ranges))]
    got = [(offset, len(data)) for offset, data in blocks]
    asked = [(wanted.offset, wanted.length) for wanted in ranges]
    assert got == asked, f"{disk.key}: read() must yield one block for each range, in the same order"
    return [(offset, bytes(data)) for offset, data in blocks]


def assert_same(copies: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    """Fail with the first byte that differs, of whichever disk."""
    assert sorted(copies) == sorted(expected), "these disks were captured, and those were to be"
    for key, data in copies.items():
        assert_equal(f"{key}, against the machine at its moment", data, expected[key])


def assert_true_extents(disk: SourceDisk, data: bytes, base: bytes | None) -> None:
    """Zero must be zeros, and unchanged what the base has: byte by byte, before any rounding."""
    for extent in cover(disk.extents(full=base is None), disk.size):
        part = data[extent.offset : extent.end]
        if extent.kind is Kind.ZERO:
            assert_equal(f"{disk.key}, {_named(extent)}, which is called zero", part, bytes(len(part)))
        elif extent.kind is Kind.UNCHANGED:
            assert base is not None
            before = base[extent.offset : extent.end]
            assert_equal(f"{disk.key}, {_named(extent)}, which is called unchanged", part, before)


def _named(extent: Extent) -> str:
    return f"in the range {extent.offset}+{extent.length}"
