"""Machines whose disks are full of programs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd

MIB = 1 << 20
_SOURCES = ("/usr/lib/x86_64-linux-gnu", "/usr/bin", "/usr/share", "/usr/lib")
_BLOCK = 4096


def programs(paths: Sequence[Path], size: int) -> None:
    """Fill files of ``size`` bytes each with this machine's programs, libraries and data; no two get the same."""
    content = _content()
    for path in paths:
        with path.open("wb") as file:
            while (left := size - file.tell()) > 0:
                file.write(next(content)[:left])


def _content() -> Iterator[bytes]:
    """Files in pieces of at most a MiB, laid out as on a disk, in whole blocks."""
    seen: set[tuple[int, int]] = set()
    for path in itertools.chain.from_iterable(sorted(Path(source).rglob("*")) for source in _SOURCES):
        if path.is_symlink() or not path.is_file():
            continue
        found = path.stat()
        if (found.st_dev, found.st_ino) in seen:
            continue
        seen.add((found.st_dev, found.st_ino))
        with path.open("rb") as file:
            while piece := file.read(MIB):
                yield piece + bytes(-len(piece) % _BLOCK)


def off(libvirtd: Libvirtd, place: Path, image: Path, *, image_format: str = "raw") -> Guest:
    """Define a machine, named as the image that is its only disk, which has no system."""
    disk = Disk("vda", path=image, format=image_format)
    return Guest.define(libvirtd, Machine(image.stem, place / image.stem, (disk,)))


def forget(guest: Guest) -> None:
    """Let the next backup be the first one of its kind; virtnbdbackup, too, wants no checkpoints of others."""
    for checkpoint in guest.domain.listAllCheckpoints():
        checkpoint.delete()
