"""Taking the restore points of one run."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vbackup.api import (
    Buffer,
    Corrupt,
    DiskCounts,
    MachineDescription,
    NotFound,
    Point,
    PointDisk,
    Transport,
)

Read = Callable[[Mapping[str, Any]], bytes]


def _keep(store: Transport, data: bytes) -> dict[str, Any]:
    key = f"blobs/{uuid.uuid4().hex}"
    store.put(key, data, if_absent=True)
    return {"blob": key, "sha256": hashlib.sha256(data).hexdigest()}


class ShelfWriter:
    """It has nothing to remember."""

    notes: Sequence[str] = ()

    def __init__(self, store: Transport, block_size: int, read: Read) -> None:
        self.block_size = block_size
        self._store = store
        self._read = read

    def check(self) -> None:
        """Nothing stands in the way."""

    def base_problem(self, base: PointDisk) -> str | None:
        """Whether it can be read."""
        try:
            self._read(base.content)
        except (KeyError, NotFound, Corrupt) as error:
            return f"the disk before cannot be read: {error}"
        return None

    def disk(self, size: int, base: PointDisk | None) -> ShelfDiskWriter:
        """Begin one."""
        before = None if base is None else self._read(base.content)
        return ShelfDiskWriter(self._store, self.block_size, size, before)

    def file(self, data: bytes) -> dict[str, Any]:
        """Keep it as an object."""
        return _keep(self._store, data)

    def commit(self, point: Point, description: MachineDescription) -> None:
        """All it needs is there."""
        document = {"point": point.model_dump(mode="json"), "description": description.model_dump(mode="json")}
        self._store.put(f"points/{point.id}", json.dumps(document).encode(), if_absent=True)


class ShelfDiskWriter:
    """Gathers the whole disk in memory."""

    def __init__(self, store: Transport, block_size: int, size: int, base: bytes | None) -> None:
        self._store = store
        self._block = block_size
        self._data = bytearray(size)
        self._base = base
        self._changed = self._zero = 0
        self._samples: list[int] = []

    def write(self, offset: int, data: Buffer) -> None:
        """Take data."""
        for start in range(0, len(data), self._block):
            self._take(offset + start, bytes(data[start : start + self._block]))

    def zero(self, offset: int, length: int) -> None:
        """Take zeros."""
        self._zero += length
        for start in range(offset, offset + length, self._block):
            self._take(start, bytes(min(self._block, offset + length - start)))

    def unchanged(self, offset: int, length: int) -> None:
        """Take what the base has there."""
        part = (self._base or b"")[offset : offset + length]
        self._data[offset : offset + len(part)] = part

    def same(self, offset: int, data: Buffer) -> bool:
        """Compare."""
        return self._base is not None and self._base[offset : offset + len(data)] == data

    def last_data(self, offset: int, length: int) -> int | None:
        """Look backwards."""
        base = self._base or b""
        starts = range(offset, min(offset + length, len(base)), self._block)
        return next((start for start in reversed(starts) if any(base[start : start + self._block])), None)

    def finish(self) -> tuple[dict[str, Any], DiskCounts]:
        """Keep it as an object."""
        return _keep(self._store, bytes(self._data)), self.progress()

    def progress(self) -> DiskCounts:
        """What was counted."""
        return DiskCounts(self._changed, len(self._data), self._zero, 0, tuple(self._samples[:64]))

    def _take(self, offset: int, data: bytes) -> None:
        self._data[offset : offset + len(data)] = data
        if not self.same(offset, data):
            self._changed += len(data)
            self._samples.append(offset)
