"""Change tracking by QEMU's dirty bitmaps.

Each capture leaves a bitmap on each disk, which records what is written from its moment on; the marker names it. In
qcow2 images it is stored when QEMU ends in order, so that it is there when the machine starts again. Elsewhere it lives
as long as QEMU does.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from vbackup.api import Key, Marker
from vbackup_qmp.inventory import Disk
from vbackup_qmp.monitor import Monitor, Refused


class Since(BaseModel):
    """A capture's marker: the bitmap, and the disks that have it, by their sizes in bytes."""

    bitmap: str
    sizes: dict[Key, int]


@dataclass(frozen=True, slots=True)
class Tracked:
    """A disk that is about to be captured: ``old`` is the bitmap to read, or ``full_reason`` says why there is none."""

    disk: Disk
    old: str | None
    full_reason: str | None


def marker(bitmap: str, disks: Iterable[Disk]) -> Marker:
    """Return the marker of a capture."""
    return Since(bitmap=bitmap, sizes={disk.key: disk.size for disk in disks}).model_dump()


def since(said: Marker | None, owner: str) -> Since | None:
    """Return what a marker says; None for one that is not of this plugin and owner."""
    try:
        found = Since.model_validate(said)
    except ValidationError:
        return None
    return found if found.bitmap.startswith(_prefix(owner)) else None


def new_name(owner: str) -> str:
    """Return a name for a bitmap that no other has."""
    return f"{_prefix(owner)}{secrets.token_hex(4)}"


def _prefix(owner: str) -> str:
    return f"vbackup-{owner[:8]}-"


def tracked(disk: Disk, before: Since | None) -> Tracked:
    """Return how a disk is to be read after a capture ``before``."""
    reason = _unusable(disk, before)
    return Tracked(disk, before.bitmap if before is not None and reason is None else None, reason)


def _unusable(disk: Disk, before: Since | None) -> str | None:
    if before is None or disk.key not in before.sizes:
        return "first backup of this disk"
    if before.sizes[disk.key] != disk.size:
        return f"resized from {before.sizes[disk.key]} to {disk.size} bytes"
    bitmap = disk.bitmaps.get(before.bitmap)
    if bitmap is None and not disk.keeps_bitmaps:
        return f"changes of {disk.format} images are tracked only as long as QEMU runs, and it was started again"
    if bitmap is None:
        return "the bitmap is gone (QEMU was killed, or the image replaced)"
    if bitmap.inconsistent:
        return "the bitmap is inconsistent (QEMU was killed)"
    if not bitmap.recording:
        return "the bitmap is disabled"
    return None


async def drop(monitor: Monitor, disks: Iterable[Disk], owner: str, keep: str | None) -> None:
    """Remove this owner's bitmaps but one. Those of others are never touched."""
    for disk in disks:
        for bitmap in disk.bitmaps.values():
            if bitmap.name.startswith(_prefix(owner)) and bitmap.name != keep and not bitmap.busy:
                await monitor.ask("block-dirty-bitmap-remove", node=disk.node, name=bitmap.name)


async def forget(monitor: Monitor, disks: Iterable[Disk], name: str) -> None:
    """Remove one bitmap from the disks that have it."""
    for disk in disks:
        with suppress(Refused):  # it was never made
            await monitor.ask("block-dirty-bitmap-remove", node=disk.node, name=name)
