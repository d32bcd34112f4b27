"""Image files, by qemu-img. Nothing here ever guesses a format: a guest can write any header into a raw disk."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vbackup.api import Busy, ConfigError, Unsupported, VBackupError
from vbackup_qemu.host import Host

GRANULARITY = 64 << 10
"""Bytes of the disk that one bit of a new bitmap stands for."""


@dataclass(frozen=True, slots=True)
class BitmapInfo:
    """A persistent dirty bitmap in a qcow2 image; granularity in bytes."""

    granularity: int
    flags: frozenset[str]

    @property
    def enabled(self) -> bool:
        """Whether it records writes."""
        return "auto" in self.flags

    @property
    def consistent(self) -> bool:
        """Whether it was stored in order by whoever recorded in it last."""
        return "in-use" not in self.flags


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What ``qemu-img info`` says of an image; sizes in bytes."""

    format: str
    virtual_size: int
    actual_size: int
    compat: str | None = None
    """qcow2 only: ``0.10`` is version 2, ``1.1`` is version 3."""
    backing: str | None = None
    data_file: str | None = None
    encrypted: bool = False
    bitmaps: Mapping[str, BitmapInfo] = field(default_factory=dict)


def info(host: Host, path: str | Path, format: str, *, force_share: bool = False) -> ImageInfo:  # noqa: A002
    """Look at an image. ``force_share`` reads it even while somebody writes to it; never trust bitmaps then.

    Raises: `NotFound`, `AccessDenied`, `Busy` when somebody has it open for writing.
    """
    share = ["--force-share"] if force_share else []
    done = _qemu_img(host, path, "info", "--output=json", *share, "--format", format, "--", operand(path))
    return _parse(json.loads(done))


def _parse(document: dict[str, Any]) -> ImageInfo:
    special = document.get("format-specific", {}).get("data", {})
    bitmaps = {b["name"]: BitmapInfo(b["granularity"], frozenset(b["flags"])) for b in special.get("bitmaps", ())}
    return ImageInfo(
        format=document["format"],
        virtual_size=document["virtual-size"],
        actual_size=document.get("actual-size", 0),
        compat=special.get("compat"),
        backing=document.get("full-backing-filename", document.get("backing-filename")),
        data_file=special.get("data-file"),
        encrypted=bool(document.get("encrypted")),
        bitmaps=bitmaps,
    )


@dataclass(frozen=True, slots=True)
class Trace:
    """What tells a file from another one, and shows that it was written to; sizes in bytes."""

    path: str
    inode: str
    """Its device and inode. Empty for a block device, whose numbers and times mean nothing, as are the next two."""
    size: int
    modified: str
    """Seconds since the epoch, with nine decimals."""


def trace(host: Host, paths: Sequence[str | Path]) -> tuple[Trace, ...]:
    """Look at files, symbolic links followed. Raises: `NotFound`, `AccessDenied`."""
    if not paths:
        return ()
    argv = ["stat", "-L", "--printf=%f %d:%i %s %.9Y\\n", "--", *(operand(path) for path in paths)]
    lines = host.run(argv).stdout.decode().splitlines()
    return tuple(_trace(str(path), *line.split()) for path, line in zip(paths, lines, strict=True))


def _trace(path: str, mode: str, inode: str, size: str, modified: str) -> Trace:
    return Trace(path, "", 0, "") if stat.S_ISBLK(int(mode, 16)) else Trace(path, inode, int(size), modified)


def backing_files(host: Host, path: str | Path, format: str, *, force_share: bool = False) -> list[str]:  # noqa: A002
    """Return the paths of all files below an image: its backing file, that one's, and their data files.

    Raises: `Unsupported` for one that is no file of the host, and what `info` raises.
    """
    share = ["--force-share"] if force_share else []
    argv = ("info", "--backing-chain", "--output=json", *share, "--format", format, "--", operand(path))
    found = []
    for layer in json.loads(_qemu_img(host, path, *argv))[1:]:
        name = layer["filename"]
        data_file = _parse(layer).data_file
        found += [name, *([str(PurePosixPath(name).parent / data_file)] if data_file is not None else [])]
    for name in found:
        if not name.startswith("/"):
            raise Unsupported(f"{path}: its backing file {name} is not on {host.name}")
    return found


def create(host: Host, path: str | Path, format: str, size: int) -> None:  # noqa: A002
    """Make an empty, thin image that only its owner can read. Whatever was at ``path`` is lost.

    Raises: `AccessDenied`, `NotFound` without its directory, `NoSpace`.
    """
    host.write_file(path, b"", 0o600)  # qemu-img keeps the mode of a file that it finds
    _qemu_img(host, path, "create", "-q", "-f", format, "--", operand(path), str(size))


def add_bitmap(host: Host, path: str | Path, name: str, granularity: int = GRANULARITY) -> None:
    """Add an enabled bitmap to a qcow2 image that nobody has open: it records every write from now on."""
    options = ("--add", "-g", str(granularity), "-f", "qcow2")
    _qemu_img(host, path, "bitmap", *options, "--", operand(path), name)


def remove_bitmap(host: Host, path: str | Path, name: str) -> None:
    """Remove a bitmap, consistent or not, from a qcow2 image that nobody has open."""
    _qemu_img(host, path, "bitmap", "--remove", "-f", "qcow2", "--", operand(path), name)


def operand(path: str | Path) -> str:
    """Return a path that QEMU takes as one: in a relative one, what is before a colon would be a protocol."""
    if not str(path).startswith("/"):
        raise ConfigError(f"the image path {path} is not absolute")
    return str(path)


def _qemu_img(host: Host, path: str | Path, *arguments: str) -> bytes:
    try:
        return host.run(["qemu-img", *arguments]).stdout
    except Busy as error:
        raise busy(path) from error
    except VBackupError as error:
        error.message = f"{path}: {error.message}"
        raise


def busy(path: str | Path) -> Busy:
    """Return the error for an image that somebody else has open."""
    return Busy(
        f"{path} is in use by another process",
        hint="if a virtual machine runs on it, back that up through its hypervisor, such as libvirt",
    )
