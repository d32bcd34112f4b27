"""Change markers: what is stored with a restore point, and for which disks it can be trusted.

A marker is a hint. Whenever there is a doubt about a disk, that disk is read in full, and the reason is kept.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbackup.api import Marker
from vbackup_libvirt import checkpoints
from vbackup_libvirt.document import Disk
from vbackup_qemu.image import ImageInfo, Trace


class TrackedDisk(BaseModel):
    """A disk as it was when its bitmap was made; size in bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: int
    source: str
    inode: str
    """The image's device and inode: all disks of a machine have bitmaps of one name, which must not be mixed up."""
    backing: tuple[Trace, ...]
    """The files below the image, of whose changes its bitmap knows nothing."""


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
    if info.data_file is not None:
        return "images with an external data file, which may be written to directly, are not tracked"
    if info.compat == "0.10":
        amend = f"qemu-img amend -f qcow2 -o compat=1.1 {disk.source}"
        return f"qcow2 v2 (compat 0.10) cannot keep bitmaps; `{amend}`, with the machine off, helps"
    return None


def why_full(key: str, now: TrackedDisk, uuid: str, since: Since | None) -> str | None:
    """Return why a marker says nothing of a disk that is as ``now`` says, as a phrase; None when it may."""
    if since is None:
        return "first backup of this disk"
    if since.uuid != uuid:
        return "the last backup was of another machine of this name"
    then = since.disks.get(key)
    if then is None:
        return "its changes were not tracked since the last backup"
    if then.size != now.size:
        return f"resized from {then.size} to {now.size} bytes"
    if then.source != now.source:
        return f"moved from {then.source} to {now.source}"
    if then.inode != now.inode:
        return "its image was replaced by another file"
    if then.backing != now.backing:
        return "its backing file changed"
    return None
