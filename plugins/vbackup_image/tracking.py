"""Change tracking by bitmaps in qcow2 images.

Each capture leaves a new bitmap in the image, which QEMU keeps up to date from then on, whoever runs it. The marker
of the capture names it. A bitmap is part of its image: copies and moves of the file take it along, and it fits the
bytes that it lies beside.

Why the bitmap may be added before the image is served for reading, without a lock in between: a write that comes in
the gap is in the new bitmap, so it is merely read once more next time; and it is in the old one, so it is read now.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from vbackup.api import Key, Marker
from vbackup_qemu import image
from vbackup_qemu.host import Host
from vbackup_qemu.image import ImageInfo, Trace


class DiskMarker(BaseModel):
    """What the marker says of a disk: the bitmap that records since then, and the size in bytes."""

    bitmap: str
    size: int
    backing: tuple[Trace, ...]
    """The files below the image, of whose changes the bitmap knows nothing."""


class _Markers(BaseModel):
    disks: dict[Key, DiskMarker]


def to_marker(disks: Mapping[str, DiskMarker]) -> Marker | None:
    """Return the marker of a capture; None when no disk is tracked."""
    return {"disks": {key: disk.model_dump(mode="json") for key, disk in disks.items()}} if disks else None


def from_marker(marker: Marker | None, owner: str) -> dict[str, DiskMarker]:
    """Return what a marker says of each disk; what is not of this plugin and owner is left out."""
    try:
        disks = _Markers.model_validate(marker or {"disks": {}}).disks
    except ValidationError:
        return {}
    return {key: disk for key, disk in disks.items() if disk.bitmap.startswith(_prefix(owner))}


def new_name(owner: str) -> str:
    """Return a name for a bitmap that no other has."""
    return f"{_prefix(owner)}{secrets.token_hex(4)}"


def _prefix(owner: str) -> str:
    return f"vbackup-{owner[:8]}-"


def untrackable(path: Path, info: ImageInfo) -> str | None:
    """Return why an image can keep no bitmap, as a phrase, or None."""
    if info.format != "qcow2":
        return f"{info.format} images have no bitmaps"
    if info.compat == "0.10":
        return f"qcow2 v2 (compat 0.10) cannot keep bitmaps; `qemu-img amend -f qcow2 -o compat=1.1 {path}` helps"
    if info.data_file is not None:
        return "images with an external data file are not tracked"
    return None


def unusable(info: ImageInfo, backing: tuple[Trace, ...] | None, since: DiskMarker | None) -> str | None:
    """Return why the bitmap of the capture before does not tell what changed, as a phrase, or None."""
    if since is None:
        return "first backup of this disk"
    if since.size != info.virtual_size:
        return f"resized from {since.size} to {info.virtual_size} bytes"
    if since.backing != backing:
        return "its backing file changed"
    bitmap = info.bitmaps.get(since.bitmap)
    if bitmap is None:
        return "the bitmap is gone"
    if not bitmap.consistent:
        return "the bitmap is inconsistent (QEMU was killed)"
    if not bitmap.enabled:
        return "the bitmap is disabled"
    return None


def tidy(host: Host, path: Path, owner: str, keep: Collection[str]) -> None:
    """Remove this owner's bitmaps from a qcow2 image but for ``keep``. Those of others are never touched."""
    for name in image.info(host, path, "qcow2").bitmaps:
        if name.startswith(_prefix(owner)) and name not in keep:
            image.remove_bitmap(host, path, name)
