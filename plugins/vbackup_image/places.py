"""Where the disks of a restore go, in which format, and what speaks against it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vbackup.api import (
    AlreadyExists,
    Busy,
    ConfigError,
    MachineDescription,
    NoSpace,
    NotFound,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
)
from vbackup_image.options import BY_SUFFIX, ImageOptions
from vbackup_qemu import image
from vbackup_qemu.host import Host, translated

WRITABLE = ("raw", "qcow2")


@dataclass(frozen=True, slots=True)
class Place:
    """A disk, and the file or block device that it goes to."""

    disk: RestoreDisk
    path: Path
    format: str

    @property
    def is_device(self) -> bool:
        """Whether it is written in place."""
        return self.path.is_block_device()


def choose(
    options: ImageOptions, machine: MachineDescription, disks: Sequence[RestoreDisk], request: RestoreRequest
) -> list[Place]:
    """Return the place of each disk. Raises: `ConfigError`, `NotFound`, `Unsupported`."""
    if request.format not in (None, *WRITABLE):
        raise Unsupported(f"{machine.name}: {request.format} images cannot be written", hint="choose raw or qcow2")
    choice: Callable[[RestoreDisk], Place]
    if request.disks:
        choice = _given(request, disks)
    elif request.name is not None:
        choice = _new(options, request.name, request.format)
    else:
        choice = _own(options, machine, request.format)
    places = [choice(disk) for disk in disks]
    if len({place.path for place in places}) < len(places):
        raise ConfigError(f"{machine.name}: two disks would go to one place")
    return places


def _given(request: RestoreRequest, disks: Sequence[RestoreDisk]) -> Callable[[RestoreDisk], Place]:
    unknown = set(request.disks) ^ {disk.key for disk in disks}
    if unknown:
        raise NotFound(f"the disks asked for and those at hand differ: {', '.join(sorted(unknown))}")

    def choice(disk: RestoreDisk) -> Place:
        path = Path(os.path.realpath(request.disks[disk.key]))
        suffix = BY_SUFFIX.get(path.suffix.lower())
        return _place(disk, path, request.format or (suffix if suffix in WRITABLE else None))

    return choice


def _new(options: ImageOptions, name: str, format: str | None) -> Callable[[RestoreDisk], Place]:  # noqa: A002
    storage = options.storage
    if storage is None:
        raise ConfigError(f"there is no place for a new machine {name}", hint="set `storage:` to a directory")
    if "/" in name or name.startswith("."):
        raise ConfigError(f"a machine cannot be called {name!r} here: its files would not lie in {storage}")

    def choice(disk: RestoreDisk) -> Place:
        plain = _place(disk, storage, format)
        suffix = {"raw": ".raw", "qcow2": ".qcow2"}[plain.format]
        return Place(disk, Path(os.path.realpath(storage / f"{name}-{disk.key}{suffix}")), plain.format)

    return choice


def _own(options: ImageOptions, machine: MachineDescription, format: str | None) -> Callable[[RestoreDisk], Place]:  # noqa: A002
    images = {f"disk{index}": item for index, item in enumerate(options.machines.get(machine.name, ()))}

    def choice(disk: RestoreDisk) -> Place:
        item = images.get(disk.key)
        if item is None:
            raise NotFound(
                f"{machine.name}: the configuration has no image for {disk.key}",
                hint="restore under a new name, or name a path for each disk",
            )
        if item.format not in WRITABLE or format not in (None, item.format):
            wanted = format or item.format
            raise Unsupported(
                f"{item.path} is configured as {item.format} and cannot be replaced by {wanted}",
                hint="restore under a new name, or name a path for each disk",
            )
        return _place(disk, Path(os.path.realpath(item.path)), item.format)

    return choice


def _place(disk: RestoreDisk, path: Path, format: str | None) -> Place:  # noqa: A002
    if path.is_block_device():
        if format == "qcow2":
            raise Unsupported(f"{path} is a block device: it holds raw bytes only", hint="choose raw")
        return Place(disk, path, "raw")
    return Place(disk, path, format or (disk.format if disk.format in WRITABLE else "qcow2"))


def refuse(host: Host, place: Place, *, overwrite: bool) -> None:
    """Raise what speaks against writing to a place.

    Raises: `AlreadyExists`, `NotFound`, `NoSpace`, `Unsupported`, `Busy`.
    """
    path = place.path
    if not path.parent.is_dir():
        raise NotFound(f"{path.parent} is not there", hint="make that directory")
    if not path.exists():
        return
    if not place.is_device and not path.is_file():
        raise Unsupported(f"{path} is neither a file nor a block device")
    if not overwrite:
        raise AlreadyExists(f"{path} has content that would be lost", hint="ask for it to be overwritten")
    if place.is_device:
        with claimed(path, os.O_RDWR):
            pass  # whether it is free is all that counts here
        size = image.info(host, path, "raw").virtual_size
        if size < place.disk.size:
            raise NoSpace(f"{path} has {size} bytes, and {place.disk.key} needs {place.disk.size}")


@contextmanager
def claimed(device: Path, mode: int = os.O_RDONLY) -> Iterator[None]:
    """Keep the kernel from using a device, such as by a mount (open(2), O_EXCL).

    Raises: `Busy` when it is mounted, or part of another device, already.
    """
    try:
        descriptor = os.open(device, mode | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Busy(f"{device} is mounted or part of another device", hint="unmount it") from error
        with translated(f"opening {device}"):
            raise
    try:
        yield
    finally:
        os.close(descriptor)
