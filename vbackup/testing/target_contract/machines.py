"""Machines made of bytes, kept in a target as the framework keeps real ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from vbackup.api import (
    DiskDescription,
    Extent,
    Kind,
    MachineDescription,
    Point,
    PointDisk,
    Range,
    Target,
    Writer,
    merge,
    split,
)

MIB = 1 << 20
READ = 4 * MIB
"""The most that is read or written at once, in bytes."""
SIZE = MIB + 1000
"""Of most disks, in bytes: no whole number of blocks, or of sectors."""
_BEGINNING = datetime(2026, 1, 31, 22, 59, 59, 123456, UTC)


def noise(size: int, seed: int) -> bytes:
    """Return bytes that are always the same, and cannot be compressed."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


@dataclass(frozen=True)
class Kept:
    """A restore point, and what must come out of it."""

    point: Point
    disks: Mapping[str, bytes]
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def description(self) -> MachineDescription:
        """The machine of the point."""
        disks = tuple(DiskDescription(key=key, size=len(data)) for key, data in self.disks.items())
        return MachineDescription(name=self.point.machine, id=self.point.machine_id, disks=disks)


def keep(
    target: Target, disks: Mapping[str, bytes], before: Kept | None = None, files: Mapping[str, bytes] = {}, **more: Any
) -> Kept:
    """Make a restore point in a run of its own; see `write`."""
    with target.writer() as writer:
        return commit(writer, write(writer, disks, before, files, **more))


def commit(writer: Writer, kept: Kept) -> Kept:
    """Make it durable."""
    writer.commit(kept.point, kept.description)
    return kept


def write(
    writer: Writer, disks: Mapping[str, bytes], before: Kept | None = None, files: Mapping[str, bytes] = {}, **more: Any
) -> Kept:
    """Write all that a restore point needs, and return it for `Writer.commit`; see `made` for ``more``.

    What ``before`` has as well is called unchanged.
    """
    if before is not None:
        more = {"machine": before.point.machine, "sequence": before.point.sequence + 1} | more
    bases = {disk.key: disk for disk in before.point.disks} if before else {}
    written = [
        write_disk(writer, key, data, bases.get(key), before.disks.get(key) if before else None)
        for key, data in disks.items()
    ]
    return made(written, disks, files, {name: writer.file(data) for name, data in files.items()}, **more)


def made(
    written: Sequence[PointDisk],
    disks: Mapping[str, bytes],
    files: Mapping[str, bytes] = {},
    contents: Mapping[str, Any] = {},
    *,
    machine: str = "web",
    sequence: int = 1,
    **more: Any,
) -> Kept:
    """Return the point of what was written; ``more`` are other fields of it. Its id is that of machine and sequence."""
    known = {
        "id": UUID(int=random.Random(f"{machine} {sequence}").getrandbits(128)).hex,  # noqa: S311 - no secret
        "machine": machine,
        "hypervisor": "lab",
        "hypervisor_type": "fake",
        "machine_id": f"id-{machine}"[:255],
        "time": _BEGINNING + timedelta(hours=sequence),
        "sequence": sequence,
        "disks": tuple(written),
        "files": dict(contents),
    }
    return Kept(Point.model_validate(known | more), dict(disks), dict(files))


def write_disk(
    writer: Writer, key: str, data: bytes, base: PointDisk | None = None, before: bytes | None = None
) -> PointDisk:
    """Write a disk, its base's bytes being ``before``."""
    disk = writer.disk(len(data), base)
    for extent in steps(writer.block_size, data, before if base else None):
        if extent.kind is Kind.ZERO:
            disk.zero(extent.offset, extent.length)
        elif extent.kind is Kind.UNCHANGED:
            disk.unchanged(extent.offset, extent.length)
        else:
            for offset, length in split([Range(extent.offset, extent.length)], READ):
                disk.write(offset, bytearray(data[offset : offset + length]))  # a copy, for it is the target's then
    content, counts = disk.finish()
    return PointDisk(
        key=key, size=len(data), content=content, full_reason=None if base else "first capture",
        changed=counts.changed, stored=counts.stored, samples=counts.samples,
    )  # fmt: skip


def steps(block: int, data: bytes, before: bytes | None) -> Iterator[Extent]:
    """Yield how a disk is given: by whole blocks, and only what both disks have as such is called unchanged."""
    shared = 0 if before is None else min(len(data), len(before))
    if before is not None and len(before) != len(data):
        shared = shared // block * block

    def kinds() -> Iterator[Extent]:
        for offset in range(0, len(data), block):
            part = data[offset : offset + block]
            if before is not None and offset < shared and part == before[offset : offset + block]:
                kind = Kind.UNCHANGED
            else:
                kind = Kind.DATA if any(part) else Kind.ZERO
            yield Extent(offset, len(part), kind)

    return merge(kinds())
