"""Where everything lies below the root, and the document that makes a directory a restore point.

::

    vbackup-images.json                   which target this is
    web/2026-11-22T14-05-00Z-1f0a9c3e/    a restore point of the machine web
        point.json                        the point itself; everything else beside it was durable before
        machine.json, hypervisor.xml      the machine, and the hypervisor's own document of it
        vda.qcow2, vda.sums               a disk, and the BLAKE3 of each block of it
        files/nvram                       small files
        protected.txt, damaged.txt        why it is kept, and what `verify` found, if anything
    .writing/<32 hex digits>/             what a run has not finished; its lock is beside it
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from datetime import UTC
from pathlib import Path
from typing import Any

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field

from vbackup.api import Corrupt, NotFound, Point, PointDisk
from vbackup_qemu.host import translated

FORMAT = 1
TARGET = "vbackup-images.json"
WRITING = ".writing"
POINT = "point.json"
MACHINE = "machine.json"
FILES = "files"
PROTECTED = "protected.txt"
DAMAGED = "damaged.txt"

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STRANGE = re.compile(r"[^A-Za-z0-9._-]+")
_NO_FILE = {errno.ELOOP, errno.ENXIO, errno.EISDIR}  # opening a link, a socket, a directory for writing
_MOST = 64 << 20
"""Bytes that a document may have."""


class Record(BaseModel):
    """``point.json``. Its last field is a checksum: a point that was edited or rotted is no point."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    format: int
    machine: str = Field(pattern=r"^[0-9a-f]{64}$", description="BLAKE3 of machine.json")
    point: Point

    def document(self) -> bytes:
        """Return the bytes of ``point.json``."""
        fields = self.model_dump(mode="json")
        return json.dumps(fields | {"blake3": _sum(fields)}, indent=2).encode() + b"\n"


def _sum(fields: dict[str, Any]) -> str:
    return blake3(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def machine_directory(name: str) -> str:
    """Return a directory's name for a machine: its own where that is harmless, else one that no other machine gets."""
    if _PLAIN.fullmatch(name) and name != TARGET:
        return name
    mark = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:16]
    readable = _STRANGE.sub("_", name).strip("._-")[:40]
    return f"{readable or 'machine'}~{mark}"  # no plain name has a tilde


def point_directory(root: Path, point: Point) -> Path:
    """Return where a point is."""
    moment = point.time.astimezone(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return root / machine_directory(point.machine) / f"{moment}-{point.id[:8]}"


def image_name(disk: PointDisk) -> str:
    """Return the name of a disk's image file. Raises: `Corrupt`."""
    return f"{disk.key}.{text(disk.content, 'format', r'qcow2|raw')}"


def sums_name(disk: PointDisk) -> str:
    """Return the name of the file with a disk's sums."""
    return f"{disk.key}.sums"


def text(content: dict[str, Any], name: str, pattern: str) -> str:
    """Return a field of what a point says of a disk or file. Raises: `Corrupt`."""
    value = content.get(name)
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise Corrupt(f"the restore point says nothing usable of the {name} of a file")
    return value


def load(directory: Path) -> Record:
    """Read and check a point's document. Raises: `NotFound`, `Corrupt`."""
    path = directory / POINT
    data = read_document(path)
    try:
        fields = json.loads(data)
        if fields.pop("blake3") != _sum(fields):
            raise Corrupt(f"{path} is not what was written: it was edited or damaged")
        record = Record.model_validate(fields)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise Corrupt(f"{path} is damaged") from error
    if record.format != FORMAT:
        raise Corrupt(f"{path} is of format {record.format}, and this vbackup knows {FORMAT}")
    return record


def read_document(path: Path) -> bytes:
    """Return the bytes of a small file. Raises: as `open_file`; `Corrupt` for one that is too large."""
    with translated(f"reading {path}"), os.fdopen(open_file(path), "rb") as file:
        if os.fstat(file.fileno()).st_size > _MOST:
            raise Corrupt(f"{path} is larger than any that was written")
        return file.read()


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file that is there. Raises: `NotFound`, `Corrupt` for a link or what is no file, `AccessDenied`."""
    with translated(f"opening {path}"):
        try:
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise NotFound(f"{path} is not there") from error
        except OSError as error:
            if error.errno in _NO_FILE:
                raise Corrupt(f"{path} is no file") from error
            raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Corrupt(f"{path} is no file")
    return descriptor
