"""Disks that are being put back as files or onto block devices.

A file is written beside its place, and renamed when all is there; a device is written in place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vbackup.api import (
    MachineDescription,
    PluginError,
    RestoreDisk,
    RestoreRequest,
    SinkDisk,
    Unsupported,
)
from vbackup_image.journal import Journal
from vbackup_image.options import ImageOptions
from vbackup_image.places import Place, choose, refuse
from vbackup_qemu import image
from vbackup_qemu.host import Host, sync_directory, translated
from vbackup_qemu.server import serve
from vbackup_qemu.sink import ImageSink


class ImageRestoration:
    """A `Restoration` of image files; ``temporaries`` are the files that take the places of those keys at the end."""

    def __init__(
        self,
        name: str,
        places: Sequence[Place],
        sinks: Mapping[str, ImageSink],
        temporaries: Mapping[str, Path],
        notes: Sequence[str],
    ) -> None:
        self._name = name
        self._places = places
        self._sinks = sinks
        self._temporaries = temporaries
        self.disks: Mapping[str, SinkDisk] = sinks
        self.notes = notes

    def finish(self) -> str:
        """See `Restoration.finish`."""
        missing = [key for key, sink in self._sinks.items() if not sink.is_complete]
        if missing:
            raise PluginError(f"{self._name}: finished before {', '.join(missing)} was written")
        for place in self._places:
            if place.disk.key in self._temporaries:
                temporary = self._temporaries[place.disk.key]
                if place.disk.is_memory and place.format == "raw":  # QEMU made it a multiple of a sector
                    with translated(f"cutting {temporary} to its size"):
                        os.truncate(temporary, place.disk.size)
                _put(temporary, place.path)
        return f"{self._name}: {', '.join(str(place.path) for place in self._places)}"


def _put(temporary: Path, path: Path) -> None:
    with translated(f"renaming {temporary} to {path}"):
        if path.exists():  # whoever could use the old one can use the new one
            old = path.stat()
            os.chown(temporary, old.st_uid, old.st_gid)
            temporary.chmod(old.st_mode & 0o7777)
        temporary.replace(path)
        sync_directory(path.parent)


@contextmanager
def restoration(
    host: Host,
    options: ImageOptions,
    journal: Journal,
    machine: MachineDescription,
    disks: Sequence[RestoreDisk],
    files: Mapping[str, bytes],
    request: RestoreRequest,
) -> Iterator[ImageRestoration]:
    """See `Hypervisor.restore`. What is made here is in ``journal``, whose holder removes it unless it is renamed."""
    if request.start:
        raise Unsupported(f"{machine.name}: images cannot be started", hint="restore without starting")
    places = choose(options, machine, disks, request)
    for place in places:
        refuse(host, place, overwrite=request.overwrite)
    sockets = journal.private_dir()
    with ExitStack() as guards:
        for place in places:
            _guard(guards, host, place, sockets)
        temporaries = {p.disk.key: _temporary(host, journal, p) for p in places if not p.is_device}
        sinks = {p.disk.key: _sink(host, p, temporaries.get(p.disk.key), sockets, machine.name) for p in places}
        name = request.name or machine.name
        notes = [*_space(host, places), *(f"{file} was left out: images have no place for it" for file in files)]
        yield ImageRestoration(name, places, sinks, temporaries, notes)


def _guard(guards: ExitStack, host: Host, place: Place, sockets: Path) -> None:
    """Refuse what a machine runs on, and keep one from starting on it: a rename would leave it on a deleted file."""
    if not place.path.exists():
        return
    served = serve(host, place.path, "raw", sockets=sockets)
    if place.is_device:  # the sink itself will hold the lock
        with served:
            return
    guards.enter_context(served)


def _temporary(host: Host, journal: Journal, place: Place) -> Path:
    path = journal.temporary(place.path)
    image.create(host, path, place.format, place.disk.size)
    return path


def _sink(host: Host, place: Place, temporary: Path | None, sockets: Path, machine: str) -> ImageSink:
    return ImageSink(
        host,
        temporary or place.path,
        place.format,
        place.disk.size,
        zeroed=temporary is not None,
        sockets=sockets,
        label=f"{machine}/{place.disk.key}",
    )


def _space(host: Host, places: Sequence[Place]) -> Iterator[str]:
    needed: dict[Path, int] = {}
    for place in places:
        if not place.is_device:
            needed[place.path.parent] = needed.get(place.path.parent, 0) + place.disk.size
    for directory, size in needed.items():
        free = host.free_bytes(directory)
        if free < size:
            yield f"{directory} has {free} bytes free, and the disks can grow to {size}"
