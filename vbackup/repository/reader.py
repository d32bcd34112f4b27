"""Disks of restore points read back: ranges become chunks, chunks are fetched and decoded ahead by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from vbackup.api import Block, Buffer, Corrupt, Damage, Extent, Point, PointDisk, Range
from vbackup.repository.decoded import Decoded
from vbackup.repository.diskmap import DiskMap, Shape
from vbackup.repository.diskwriter import base_map
from vbackup.repository.fetch import Fetch
from vbackup.repository.layout import FANOUT, ZERO_ID
from vbackup.repository.nodes import NodesAhead
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.store import ChunkStore

_WINDOW = 8 << 20
"""Bytes of chunks that are looked up together."""
_RANGES = 1 << 12
"""That are looked up together at the most."""
_AHEAD = 32 << 20
"""Bytes of chunks that are fetched ahead of the consumer."""


class _Window(NamedTuple):
    """Ranges that follow each other, each with the ids of the chunks it lies in; and how many bytes these are."""

    ranges: Sequence[tuple[Range, Sequence[bytes]]]
    size: int

    @property
    def ids(self) -> list[bytes]:
        """The chunks that are stored, each once."""
        return list(dict.fromkeys(chunk for _, ids in self.ranges for chunk in ids if chunk != ZERO_ID))


class DiskReader:
    """One disk of one point. Used by one thread; ``decoded`` is shared with other readers of the store."""

    def __init__(
        self, store: ChunkStore, chunk_size: int, point: Point, disk: PointDisk, decoded: Decoded | None = None
    ) -> None:
        self._store = store
        self._decoded = decoded or Decoded()
        self._where = f"disk {disk.key} of restore point {point.machine}@{point.id[:8]}"
        self._shape = Shape(disk.size, chunk_size)
        self._zeros = bytes(chunk_size)
        nodes = NodesAhead(self._shape.depth, self._load_nodes, careful=True)
        self.map = DiskMap(self._shape, base_map(disk.content), nodes.load)
        self._first = 0
        self._ids_there: Sequence[bytes] = ()  # of the chunks from there on, about as many as a leaf of the map has

    def _load_nodes(self, ids: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Load nodes, those that can be; of the first one it is an error if it cannot."""
        found = self._decoded.find(ids)
        plain, failures = self._store.read_some(ChunkKind.NODE, [i for i in ids if i not in found])
        self._decoded.add(plain)
        if ids[0] in failures:
            error = failures[ids[0]]
            raise Corrupt(f"the map of {self._where} cannot be read: {error.message}") from error
        return found | plain

    def extents(self, base: DiskMap | None = None) -> Iterator[Extent]:
        """Yield data and zero extents, and unchanged ones where ``base`` has the same."""
        if base is not None:
            return self.map.extents(base)
        nodes = NodesAhead(self._shape.depth, self._load_nodes)
        return DiskMap(self._shape, self.map.root, nodes.load).extents()

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges in order, several ahead. What is small is read in the calling thread, and kept for a while."""
        windows = self._windows(ranges)
        first, second = next(windows, None), next(windows, None)
        if first is None:
            return
        if second is None:
            yield from self._blocks(first, *self._read_small(first.ids))
            return
        pending: deque[tuple[_Window, Fetch]] = deque()
        ahead = 0
        try:
            for window in chain((first, second), windows):
                pending.append((window, self._store.start(ChunkKind.DATA, window.ids)))
                ahead += window.size
                while ahead > _AHEAD:
                    done, fetch = pending.popleft()
                    yield from self._blocks(done, *self._finish(done, fetch))
                    ahead -= done.size
            while pending:
                done, fetch = pending.popleft()
                yield from self._blocks(done, *self._finish(done, fetch))
        finally:
            for _, fetch in pending:
                fetch.cancel()

    def _finish(self, window: _Window, fetch: Fetch) -> tuple[Mapping[bytes, bytes], Mapping[bytes, Corrupt]]:
        return self._store.finish(ChunkKind.DATA, window.ids, fetch.results())

    def _read_small(self, ids: Sequence[bytes]) -> tuple[Mapping[bytes, bytes], Mapping[bytes, Corrupt]]:
        found = self._decoded.find(ids)
        plain, failures = self._store.read_some(ChunkKind.DATA, (i for i in ids if i not in found))
        self._decoded.add(plain)
        return found | plain, failures

    def _windows(self, ranges: Iterable[Range]) -> Iterator[_Window]:
        window: list[tuple[Range, Sequence[bytes]]] = []
        size = 0
        last = 0
        for wanted in ranges:
            window.append((wanted, self._ids(wanted)))
            first, end = wanted.offset // self._shape.chunk, -(-(wanted.offset + wanted.length) // self._shape.chunk)
            # Whole chunks are held, however little of them is wanted; that in which the last range ends already is.
            size += (end - (last if first < last <= end else first)) * self._shape.chunk
            last = end
            if size >= _WINDOW or len(window) >= _RANGES:
                yield _Window(window, size)
                window, size, last = [], 0, 0
        if window:
            yield _Window(window, size)

    def _ids(self, wanted: Range) -> Sequence[bytes]:
        chunk = self._shape.chunk
        if wanted.offset < 0 or wanted.offset + wanted.length > self._shape.size:
            raise ValueError(f"{wanted} is outside of a disk of {self._shape.size} bytes")
        first, end = wanted.offset // chunk, -(-(wanted.offset + wanted.length) // chunk)
        if first < self._first or end > self._first + len(self._ids_there):
            leaf_end = min((first // FANOUT + 1) * FANOUT, self._shape.chunks)
            self._first, self._ids_there = first, list(self.map.ids(first, max(end, leaf_end)))
        return self._ids_there[first - self._first : end - self._first]

    def _blocks(
        self, window: _Window, plain: Mapping[bytes, bytes], failures: Mapping[bytes, Corrupt]
    ) -> Iterator[Block]:
        for wanted, ids in window.ranges:
            if failures:
                self._raise_first(wanted, ids, failures)
            yield Block(wanted.offset, self._join(wanted, ids, plain))

    def _join(self, wanted: Range, ids: Sequence[bytes], plain: Mapping[bytes, bytes]) -> Buffer:
        """Return the bytes of a range; those of one whole chunk are not copied."""
        chunks = [self._zeros if chunk == ZERO_ID else plain[chunk] for chunk in ids]
        low = wanted.offset % self._shape.chunk
        if len(chunks) == 1:
            whole = low == 0 and wanted.length == len(chunks[0])
            return chunks[0] if whole else memoryview(chunks[0])[low : low + wanted.length]
        return memoryview(b"".join(chunks))[low : low + wanted.length]

    def _raise_first(self, wanted: Range, ids: Sequence[bytes], failures: Mapping[bytes, Corrupt]) -> None:
        for number, chunk_id in enumerate(ids, wanted.offset // self._shape.chunk):
            if chunk_id in failures:
                offset, length = number * self._shape.chunk, self._shape.chunk_length(number)
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
