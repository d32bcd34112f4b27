"""Where disks are restored to, and what must not be replaced there."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
from vbackup_qmp.monitor import is_listening
from vbackup_qmp.options import MachineOptions, QmpOptions
from vbackup_qmp.programs import require_unused

_FORMATS = ("raw", "qcow2")
DOCUMENT = "machine.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a disk goes; a device is written in place, a file is replaced in the end."""

    disk: RestoreDisk
    path: Path
    format: str

    @property
    def is_device(self) -> bool:
        """Whether it is a block device."""
        return self.path.is_block_device()


@dataclass(frozen=True, slots=True)
class Plan:
    """Where all goes: a new machine has a ``directory``, which its description goes to, too."""

    name: str
    places: Sequence[Place]
    directory: Path | None
    notes: Sequence[str]
    socket: Path | None
    """Where the machine answers that is to be replaced, if it runs."""


def choose(
    options: QmpOptions, machine: MachineDescription, disks: Sequence[RestoreDisk], request: RestoreRequest
) -> Plan:
    """Return where the disks go. Raises: `ConfigError`, `Unsupported`, `NotFound`, `AlreadyExists`."""
    if request.start:
        why = "machines of type qmp are started by whoever runs QEMU here"
        raise Unsupported(f"{machine.name}: {why}", hint="restore without starting")
    if request.disks:
        return Plan(machine.name, _named(disks, request), None, (), None)
    name = request.name or machine.name
    if request.name in options.machines:
        raise AlreadyExists(f"there is a machine {name} already")
    kept = [disk for disk in disks if not disk.is_memory]
    notes = ["the memory was left out: the machine starts afresh"] if len(kept) < len(disks) else []
    known = options.machines.get(name)
    if known is not None and known.disks:
        return _in_place(name, known, kept, request, notes)
    if options.storage is None:
        raise Unsupported(f"there is no place for {name}", hint="say where machines are restored to: `storage`")
    directory = options.storage / name
    if directory.exists() and not request.overwrite:
        raise AlreadyExists(f"{directory} exists")
    places = [_new(directory, disk, request.format) for disk in kept]
    return Plan(name, places, directory, notes, known.socket if known is not None else None)


def _in_place(
    name: str, known: MachineOptions, disks: Sequence[RestoreDisk], request: RestoreRequest, notes: Sequence[str]
) -> Plan:
    images = known.disks
    keys = {disk.key for disk in disks}
    if unknown := sorted(keys - images.keys()):
        why = f"the configuration does not say where its disk {', '.join(unknown)} is"
        raise Unsupported(f"{name}: {why}", hint="add it to `disks`")
    if request.format not in {None, *(images[key].format for key in keys)}:
        raise Unsupported(f"{name}: its images are not {request.format}, by the configuration")
    places = [Place(disk, images[disk.key].path.resolve(), images[disk.key].format) for disk in disks]
    stays = [f"{key} stays as it is: the restore point does not have it" for key in sorted(images.keys() - keys)]
    return Plan(name, places, None, [*notes, *stays], known.socket)


def _new(directory: Path, disk: RestoreDisk, wanted: str | None) -> Place:
    kind = _format(disk, wanted)
    return Place(disk, directory / f"{disk.key}.{kind}", kind)


def _named(disks: Sequence[RestoreDisk], request: RestoreRequest) -> list[Place]:
    by_key = {disk.key: disk for disk in disks}
    if missing := sorted(request.disks.keys() - by_key.keys()):
        raise NotFound(f"the restore point has no disk {', '.join(missing)}")
    if len({os.path.realpath(path) for path in request.disks.values()}) < len(request.disks):
        raise ConfigError("two disks cannot go to one file")
    return [_file(by_key[key], path.resolve(), request.format) for key, path in request.disks.items()]


def _file(disk: RestoreDisk, path: Path, wanted: str | None) -> Place:
    if not path.parent.is_dir():
        raise NotFound(f"there is no directory {path.parent}")
    if path.exists() and not (path.is_file() or path.is_block_device()):
        raise AlreadyExists(f"{path} is neither a file nor a block device")
    return Place(disk, path, (wanted or "raw") if path.is_block_device() else _format(disk, wanted))


def _format(disk: RestoreDisk, wanted: str | None) -> str:
    if wanted is not None and wanted not in _FORMATS:
        raise Unsupported(f"images of format {wanted} cannot be written", hint="raw and qcow2 can")
    if disk.is_memory:
        return "raw"
    return wanted or (disk.format if disk.format in _FORMATS else "qcow2")


def require_replaceable(plan: Plan, *, overwrite: bool) -> None:
    """Refuse what must not be replaced. Raises: `AlreadyExists`, `Busy`, `NoSpace`."""
    if plan.socket is not None and is_listening(plan.socket):
        raise Busy(f"{plan.name} is running", hint="switch it off first", transient=False)
    for place in plan.places:
        if place.path.exists():
            if not overwrite:
                raise AlreadyExists(f"{place.path} exists")
            require_unused(place.path)
        if place.is_device:
            _require_fit(place)


def _require_fit(place: Place) -> None:
    if place.format != "raw":
        raise Unsupported(f"{place.path}: a block device takes a disk as it is, not as {place.format}")
    with place.path.open("rb") as device:
        size = device.seek(0, os.SEEK_END)
    if size < place.disk.size:
        raise NoSpace(f"{place.path} has {size} bytes, {place.disk.size} are needed")
