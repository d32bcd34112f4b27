"""A writer session: disks and files are written in a directory of the run's own, and become points at once, whole.

Dying anywhere leaves that directory, which the next run removes, and every point as it was.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from vbackup.api import (
    Busy,
    Corrupt,
    MachineDescription,
    NoSpace,
    NotFound,
    PluginError,
    Point,
    PointDisk,
    VBackupError,
)
from vbackup_image.points import layout
from vbackup_image.points.chain import LONGEST, create_on
from vbackup_image.points.diskwriter import ImageDiskWriter, Started
from vbackup_image.points.layout import DAMAGED, FILES, FORMAT, MACHINE, POINT, Record
from vbackup_image.points.staging import clone, publish, write
from vbackup_image.points.stored import StoredDisk, stored
from vbackup_image.points.sums import BLOCK
from vbackup_image.points.writing import ImageWriter
from vbackup_qemu import image
from vbackup_qemu.host import Host, sync_directory, translated

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Form:
    """How disks are kept; see the options."""

    format: str
    backing: bool


class Session:
    """A `Writer`. Thread-safe; ``directory`` is its own, ``points`` are those that were there when it began."""

    notes: Sequence[str] = ()
    block_size = BLOCK

    def __init__(
        self, host: Host, root: Path, form: Form, directory: Path, sockets: Path, points: Sequence[Point]
    ) -> None:
        self._host = host
        self._root = root
        self._form = form
        self._directory = directory
        self._sockets = sockets
        self._lock = threading.Lock()
        self._disks: dict[str, tuple[Point, str]] = {}
        self._writers: dict[str, ImageDiskWriter] = {}
        self._files: dict[str, Path] = {}
        for point in points:
            self._know(point)

    def check(self) -> None:
        """See `Writer.check`."""
        with translated(f"writing to {self._directory}"):
            free = shutil.disk_usage(self._directory).free
        if not free:
            raise NoSpace(f"the file system of {self._root} is full", hint="delete points or add space")

    def base_problem(self, base: PointDisk) -> str | None:
        """See `Writer.base_problem`."""
        try:
            with self._open(base) as before:
                if (before.path.parent / DAMAGED).exists():
                    return f"`vbackup verify` found the restore point before damaged ({before.path.parent})"
        except (Corrupt, NotFound, Busy) as error:
            return f"the restore point before cannot be used: {error.message}"
        return None

    def disk(self, size: int, base: PointDisk | None) -> ImageDiskWriter:
        """See `Writer.disk`."""
        with ExitStack() as stack:
            try:
                before = None if base is None else stack.enter_context(self._open(base))
            except NotFound as error:
                raise Corrupt(error.message) from error
            started = self._start(size, before)
            writer = ImageWriter(self._host, started.path, started.format, self._sockets)
            disk = ImageDiskWriter(started, size, before, writer, stack.pop_all())
        with self._lock:
            self._writers[started.id] = disk
        return disk

    def file(self, data: bytes) -> dict[str, Any]:
        """See `Writer.file`."""
        name = secrets.token_hex(16)
        path = self._directory / f"{name}.file"
        write(path, data)
        with self._lock:
            self._files[name] = path
        return {"id": name, "size": len(data), "blake3": blake3(data).hexdigest()}

    def commit(self, point: Point, description: MachineDescription) -> None:
        """See `Writer.commit`."""
        staged = self._directory / point.id
        machine = description.model_dump_json(indent=2).encode() + b"\n"
        with translated(f"writing {staged}"):
            staged.mkdir(mode=0o700)
            self._collect(point, staged)
            write(staged / MACHINE, machine)
            if description.native is not None:
                write(staged / _native_name(description.native.text), description.native.text.encode())
            sync_directory(staged)
            record = Record(format=FORMAT, machine=blake3(machine).hexdigest(), point=point)
            write(staged / f".{POINT}", record.document())
            (staged / f".{POINT}").rename(staged / POINT)
        publish(staged, layout.point_directory(self._root, point))
        self._know(point)
        for disk in point.disks:
            try:
                self._writers.pop(disk.content["id"]).close()
            except VBackupError as error:  # the point is durable: nothing may say otherwise
                log.warning("after %s was committed: %s", point.id, error)

    def close(self) -> None:
        """Give up what was not committed."""
        with self._lock:
            writers = list(self._writers.values())
            self._writers.clear()
        for writer in writers:
            writer.close()

    def _know(self, point: Point) -> None:
        with self._lock:
            self._disks.update({str(disk.content.get("id")): (point, disk.key) for disk in point.disks})

    def _open(self, base: PointDisk) -> AbstractContextManager[StoredDisk]:
        with self._lock:
            known = self._disks.get(str(base.content.get("id")))
        if known is None:
            raise Corrupt("the restore point before is not there any more")
        return stored(self._host, self._sockets, self._root, *known)

    def _start(self, size: int, before: StoredDisk | None) -> Started:
        """Make an image: on the base or as its clone, where that can be, else empty."""
        form, name = self._form.format, secrets.token_hex(16)
        path = self._directory / f"{name}.{form}"
        reads_as_base = before is not None and before.format == form and before.disk.size == size
        if before is not None and reads_as_base:
            if self._form.backing and len(before.layers) < LONGEST:
                create_on(self._host, path, before.path, size)
            elif len(before.layers) > 1 or not clone(before.path, path):
                reads_as_base = False
        if not reads_as_base:
            image.create(self._host, path, form, size)
        return Started(name, path, self._directory / f"{name}.sums", form, reads_as_base)

    def _collect(self, point: Point, staged: Path) -> None:
        """Move what belongs to a point to it; all of it is durable already."""
        for disk in point.disks:
            writer = self._writers.get(disk.content["id"])
            if writer is None:
                raise PluginError(f"disk {disk.key} of {point.machine} was not written in this run")
            writer.started.path.rename(staged / layout.image_name(disk))
            writer.started.sums.rename(staged / layout.sums_name(disk))
        if point.files:
            (staged / FILES).mkdir(mode=0o700)
            for name, content in point.files.items():
                self._files.pop(content["id"]).rename(staged / FILES / name)
            sync_directory(staged / FILES)


def _native_name(text: str) -> str:
    return "hypervisor.xml" if text.lstrip().startswith("<") else "hypervisor.txt"
