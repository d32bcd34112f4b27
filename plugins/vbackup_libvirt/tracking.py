"""Change markers: what is stored with a restore point, and for which disks it can be trusted.

A marker is a hint. Whenever there is a doubt about a disk, that disk is read in full, and the reason is kept.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbackup.api import Marker
from vbackup_libvirt import checkpoints
from vbackup_libvirt.document import Disk
from vbackup_qemu.image import ImageInfo


class TrackedDisk(BaseModel):
    """A disk as it was when its bitmap was made; size in bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: int
    source: str


class Since(BaseModel):
    """A change marker."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    checkpoint: str
    """Its name, which is also that of the bitmap in each disk."""
    uuid: str
    """The machine."""
    created: int = Field(ge=0)
    """Seconds since the epoch."""
    disks: dict[str, TrackedDisk]

    @classmethod
    def parse(cls, marker: Marker | None, owner: str) -> Self | None:
        """Return the marker of a restore point; None when there is none, or when it is not this owner's."""
        try:
            since = cls.model_validate(marker)
        except ValidationError:
            return None
        return since if checkpoints.is_ours(since.checkpoint, owner) else None

    def dump(self) -> Marker:
        """Return what is stored."""
        return self.model_dump(mode="json")


def why_untracked(disk: Disk, info: ImageInfo | None, *, has_snapshots: bool) -> str | None:
    """Return why a disk cannot keep bitmaps, as a phrase; None when it can. ``info`` is of a local qcow2 image.

    QEMU refuses to revert to an internal snapshot while there are bitmaps, and libvirt then leaves the machine off: so
    a machine that has such snapshots gets none.
    """
    if disk.format != "qcow2":
        return f"{disk.format} images have no bitmaps"
    if has_snapshots:
        return "the machine has internal snapshots, and could not be reverted to them while its changes are tracked"
    if info is None:
        return "changes of network disks are not tracked"
    if info.compat == "0.10":
        amend = f"qemu-img amend -f qcow2 -o compat=1.1 {disk.source}"
        return f"qcow2 v2 (compat 0.10) cannot keep bitmaps; `{amend}`, with the machine off, helps"
    return None


def why_full(disk: Disk, size: int, uuid: str, since: Since | None) -> str | None:
    """Return why a marker says nothing of a disk of ``size`` bytes, as a phrase; None when it may."""
    if since is None:
        return "first backup of this disk"
    if since.uuid != uuid:
        return "the last backup was of another machine of this name"
    tracked = since.disks.get(disk.key)
    if tracked is None:
        return "its changes were not tracked since the last backup"
    if tracked.size != size:
        return f"resized from {tracked.size} to {size} bytes"
    if tracked.source != disk.source:
        return f"moved from {tracked.source} to {disk.source}"
    return None
