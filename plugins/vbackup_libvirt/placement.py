"""Where each disk of a restored machine goes. Decided, and refused if need be, before anything is made.

A restore point's document is not trusted to name paths: what is written to are disks of the machine in libvirt, new
files in `storage` or in a storage pool's directory, and what the user named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from vbackup.api import AccessDenied, AlreadyExists, Busy, NoSpace, NotFound, RestoreDisk, RestoreRequest
from vbackup_libvirt import document
from vbackup_libvirt.connection import translated
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.swap import beside

FORMATS = ("raw", "qcow2")
_SUFFIXES = {".qcow2": "qcow2", ".raw": "raw", ".img": "raw"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a disk goes: written at ``temporary`` and renamed to ``path`` at the end; a device is written in place."""

    key: str
    size: int
    format: str
    path: PurePosixPath
    """With symbolic links followed."""
    named: PurePosixPath
    """The same as the machine's document names it."""
    temporary: PurePosixPath
    is_device: bool
    replaces: bool
    """Whether something is at ``path`` that may be replaced."""


def safe_name(name: str) -> str:
    """Return a machine's name as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-") or "machine"


def _owners(node: Node, uuid: str) -> dict[str, str]:
    """Return whose the paths are that machines other than ``uuid`` name."""
    named: dict[str, str] = {}
    for machine in node.others(uuid):
        with suppress(NotFound):  # undefined meanwhile
            named |= dict.fromkeys(machine.named_paths, machine.name)
    return dict(zip(node.resolve(named), named.values(), strict=True))


class Placer:
    """Places disks for one restore. ``uuid`` is the machine whose disks they are."""

    def __init__(self, node: Node, uuid: str, request: RestoreRequest, token: str) -> None:
        self._node = node
        self._request = request
        self._token = token
        self._others = _owners(node, uuid)

    def as_named(self, disks: Sequence[RestoreDisk]) -> list[Place]:
        """Place the disks where the user said."""
        wanted, there = self._request.disks, {disk.key: disk for disk in disks}
        if missing := sorted(set(wanted) - set(there)):
            raise NotFound(
                f"the restore point has no disk {', '.join(missing)}", hint=f"it has {', '.join(sorted(there))}"
            )
        return [self._place(there[key], PurePosixPath(path), self._request.overwrite) for key, path in wanted.items()]

    def as_new(self, name: str, disks: Sequence[RestoreDisk]) -> list[Place]:
        """Place the disks of a new machine."""
        return [self._place(disk, self._in_storage(name, disk), may_replace=False) for disk in disks]

    def as_arrived(self, name: str, disks: Sequence[RestoreDisk]) -> list[Place]:
        """Place the disks of a machine that comes from another hypervisor, as itself."""
        return [self._place(disk, self._in_storage(name, disk), self._request.overwrite) for disk in disks]

    def in_place(
        self, machine: Machine, disks: Sequence[RestoreDisk], sources: Mapping[str, str]
    ) -> tuple[list[Place], list[str]]:
        """Place the disks over those that a machine has; returns notes on those for which that cannot be.

        ``sources`` is where the disks were. A disk that the machine has elsewhere now may be another one of that key.
        """
        present = {disk.key: disk for disk in document.disks(machine.xml()) if disk.left_out is None}
        places, notes = [], []
        for disk in disks:
            new, found = self._in_storage(machine.name, disk), present.get(disk.key)
            was = sources.get(disk.key, "")
            path = machine.path(found) if found is not None else None
            if found is not None and path is not None and self._is_one(found.source, path, was, new):
                places.append(self._place(disk, PurePosixPath(path), may_replace=True))
                continue
            places.append(self._place(disk, new, may_replace=False))
            now = f"was at {was}; {path}, which is another one, is left" if path else "the machine has as no file now"
            notes.append(f"disk {disk.key}, which {now}, is at {new}")
        return places, notes

    def _is_one(self, source: str, path: str, was: str, new: PurePosixPath) -> bool:
        """Whether a present disk is the one that ``was``, or what a restore has put in its stead at ``new``."""
        if source == was or path == str(new):
            return True
        return was.startswith("/") and len(set(self._node.resolve([path, was]))) == 1

    def as_it_was(
        self, name: str, disks: Sequence[RestoreDisk], sources: Mapping[str, str]
    ) -> tuple[list[Place], list[str]]:
        """Place the disks of a machine that is not defined any more: where they were, if that is a place for disks."""
        directories = {self._node.options.storage, *self._pools()}
        places, notes = [], []
        for disk in disks:
            source = PurePosixPath(sources.get(disk.key, ""))
            if source.is_absolute() and source.parent in directories and ".." not in source.parts:
                places.append(self._place(disk, source, self._request.overwrite))
                continue
            places.append(self._place(disk, self._in_storage(name, disk), self._request.overwrite))
            notes.append(
                f"disk {disk.key} was at {source}, which is no place for disks here; it is at {places[-1].path}"
            )
        return places, notes

    def _in_storage(self, name: str, disk: RestoreDisk) -> PurePosixPath:
        return self._node.options.storage / f"{safe_name(name)}-{disk.key}.{self._format(disk, None)}"

    def _pools(self) -> set[PurePosixPath]:
        connection = self._node.connection.get()
        with translated("listing the storage pools"):
            texts = [pool.XMLDesc(0) for pool in connection.listAllStoragePools() if pool.isActive()]
        return {PurePosixPath(path) for text in texts if (path := document.pool_directory(text))}

    def _format(self, disk: RestoreDisk, path: PurePosixPath | None) -> str:
        by_suffix = _SUFFIXES.get(path.suffix) if path is not None and self._request.disks else None
        return self._request.format or by_suffix or (disk.format if disk.format in FORMATS else "qcow2")

    def _place(self, disk: RestoreDisk, path: PurePosixPath, may_replace: bool) -> Place:  # noqa: FBT001 - private
        host, named = self._node.host, path
        if host.exists(str(path)) and not may_replace:
            raise AlreadyExists(
                f"disk {disk.key}: {path} is there already", hint="--overwrite, or another name or path"
            )
        (name,) = self._node.resolve([str(path)])
        path = PurePosixPath(name)
        if (owner := self._others.get(name)) is not None:
            hint = "restore it to another path, or take that disk from the other machine first"
            raise AlreadyExists(f"disk {disk.key}: {named} belongs to the machine {owner}", hint=hint)
        exists = host.exists(name)
        is_device = exists and host.run(["test", "-b", name], check=False).returncode == 0
        if is_device:
            self._require_device(disk, path)
        else:
            self._require_directory(disk, path.parent)
        if exists:
            # QEMU's locks tell whether a machine runs on it; opening it so changes nothing.
            host.run(["qemu-io", "-f", "raw", "-c", "quit", "--", name])
        where = "raw" if is_device else self._format(disk, path)
        temporary = path if is_device else beside(path, self._token)
        return Place(disk.key, disk.size, where, path, named, temporary, is_device, exists)

    def _require_device(self, disk: RestoreDisk, path: PurePosixPath) -> None:
        size = int(self._node.host.run(["blockdev", "--getsize64", str(path)]).stdout)
        if size < disk.size:
            raise NoSpace(f"disk {disk.key} has {disk.size} bytes, {path} only {size}")
        # It opens with O_EXCL, which fails while the kernel uses the device, in whatever namespace; it changes nothing.
        claimed = self._node.host.run(["wipefs", "--all", "--no-act", "--", str(path)], check=False)
        if "busy" in claimed.stderr:
            raise Busy(f"disk {disk.key}: {path} is mounted or part of another device", hint="unmount it")

    def _require_directory(self, disk: RestoreDisk, directory: PurePosixPath) -> None:
        host = self._node.host
        if not host.exists(str(directory)):
            raise NotFound(f"disk {disk.key}: there is no directory {directory}", hint="make it first")
        if host.run(["test", "-w", str(directory)], check=False).returncode:
            raise AccessDenied(f"disk {disk.key}: cannot write to {directory}")
