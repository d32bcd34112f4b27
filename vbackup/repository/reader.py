"""Disks of restore points read back: ranges become chunks, chunks are fetched and decoded by several threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from vbackup.api import Block, Corrupt, Damage, Extent, Point, PointDisk, Range
from vbackup.repository.diskmap import DiskMap, Shape
from vbackup.repository.diskwriter import base_map
from vbackup.repository.layout import ZERO_ID
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.store import ChunkStore

_AHEAD = 32 << 20
"""Bytes of a disk that are fetched ahead of the consumer."""


class DiskReader:
    """One disk of one point."""

    def __init__(self, store: ChunkStore, chunk_size: int, point: Point, disk: PointDisk) -> None:
        self._store = store
        self._where = f"disk {disk.key} of restore point {point.machine}@{point.id[:8]}"
        self._shape = Shape(disk.size, chunk_size)
        self.map = DiskMap(self._shape, base_map(disk.content), self._load_node)

    def _load_node(self, node_id: bytes) -> bytes:
        try:
            return self._store.read(ChunkKind.NODE, [node_id])[node_id]
        except Corrupt as error:
            raise Corrupt(f"the map of {self._where} cannot be read: {error.message}") from error

    def extents(self, base: DiskMap | None = None) -> Iterator[Extent]:
        """Yield data and zero extents, and unchanged ones where ``base`` has the same."""
        return self.map.extents(base)

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges in order, several ahead."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1, "restore") as pool:
            pending: deque[tuple[Range, Future[bytearray]]] = deque()
            ahead = 0
            try:
                for wanted in ranges:
                    pending.append((wanted, pool.submit(self._fetch, wanted, self._ids(wanted))))
                    ahead += wanted.length
                    while ahead > _AHEAD:
                        done, future = pending.popleft()
                        yield Block(done.offset, future.result())
                        ahead -= done.length
                while pending:
                    done, future = pending.popleft()
                    yield Block(done.offset, future.result())
            finally:
                for _, future in pending:
                    future.cancel()

    def _ids(self, wanted: Range) -> list[bytes]:
        chunk = self._shape.chunk
        if wanted.offset < 0 or wanted.offset + wanted.length > self._shape.size:
            raise ValueError(f"{wanted} is outside of a disk of {self._shape.size} bytes")
        return list(self.map.ids(wanted.offset // chunk, -(-(wanted.offset + wanted.length) // chunk)))

    def _fetch(self, wanted: Range, ids: list[bytes]) -> bytearray:
        step = self._shape.chunk
        first = wanted.offset // step * step
        plain, failures = self._store.read_some(ChunkKind.DATA, (i for i in ids if i != ZERO_ID))
        if failures:
            self._raise_first(first, ids, failures)
        result = bytearray(wanted.length)
        end = wanted.offset + wanted.length
        for number, chunk_id in enumerate(ids):
            if chunk_id == ZERO_ID:
                continue
            at = first + number * step
            data = plain[chunk_id]
            low, high = max(at, wanted.offset), min(at + len(data), end)
            result[low - wanted.offset : high - wanted.offset] = memoryview(data)[low - at : high - at]
        return result

    def _raise_first(self, first: int, ids: list[bytes], failures: dict[bytes, Corrupt]) -> None:
        for number, chunk_id in enumerate(ids):
            if chunk_id in failures:
                offset = first + number * self._shape.chunk
                length = self._shape.chunk_length(offset // self._shape.chunk)
                raise Corrupt(
                    f"{offset}+{length} of {self._where} cannot be read: {failures[chunk_id].message}",
                    hint="run `vbackup verify` for all that is affected, and restore another point",
                ) from failures[chunk_id]


def read_file(store: ChunkStore, point: Point, name: str) -> bytes:
    """Read a small file of a point. Raises `Corrupt` naming it."""
    content = point.files[name]
    try:
        ids = [bytes.fromhex(text) for text in content["chunks"]]
        plain = store.read(ChunkKind.FILE, ids)
        data = b"".join(plain[i] for i in ids)
        if len(data) != content["size"]:
            raise Corrupt("its size is wrong")  # noqa: TRY301 - joins the other reasons
    except (Corrupt, KeyError, TypeError, ValueError) as error:
        reason = error.message if isinstance(error, Corrupt) else "its description is not valid"
        raise Corrupt(
            f"file {name} of restore point {point.machine}@{point.id[:8]} cannot be read: {reason}"
        ) from error
    return data


def damage(point: Point, disk: str, offset: int, length: int, error: Corrupt) -> Damage:
    """Say what of a point cannot be read."""
    return Damage(point.id, point.machine, disk, offset, length, error.message)
