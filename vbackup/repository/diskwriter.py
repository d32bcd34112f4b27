"""One disk on its way into the repository: blocks are split, hashed and stored by the workers, ids end in the map."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from vbackup.api import Buffer, Corrupt, DiskCounts, PluginError
from vbackup.repository.diskmap import DiskMap, MapBuilder, Shape
from vbackup.repository.layout import ZERO_ID
from vbackup.repository.sealing import ChunkKind

if TYPE_CHECKING:
    from vbackup.repository.session import Session


class _Stored(NamedTuple):
    ids: list[bytes]
    stored: int
    known: int
    zero: int


class RepositoryDiskWriter:
    """Takes a disk in ascending order from one thread; the work is done by the session's workers."""

    def __init__(self, session: Session, shape: Shape, base: DiskMap | None) -> None:
        self._session = session
        self._shape = shape
        self._base = base
        self._zeros = bytes(shape.chunk)
        self._map = MapBuilder(shape, base, self._store_node)
        self._pending: deque[Future[_Stored] | Callable[[], None]] = deque()  # in the order of the disk
        self._position = 0
        self._stored = self._zero = self._known = 0

    def write(self, offset: int, data: Buffer) -> None:
        """Take data; it is not touched any more by the caller."""
        size = len(data)
        self._advance(offset, size)
        self._session.budget.acquire(size)
        try:
            future = self._session.workers.submit(self._store, data)
        except BaseException:
            self._session.budget.release(size)
            raise
        future.add_done_callback(lambda _: self._session.budget.release(size))
        self._pending.append(future)
        self._collect(wait=False)

    def zero(self, offset: int, length: int) -> None:
        """Take zeros."""
        chunks = self._advance(offset, length)
        self._zero += length
        self._pending.append(lambda: self._map.zero(chunks))
        self._collect(wait=False)

    def unchanged(self, offset: int, length: int) -> None:
        """Take what the base has."""
        chunks = self._advance(offset, length)
        self._pending.append(lambda: self._map.unchanged(chunks))
        self._collect(wait=False)

    def _advance(self, offset: int, length: int) -> int:
        """Check that a disk is given in order and in whole chunks; return how many these are."""
        end = offset + length
        if offset != self._position or length <= 0 or (end % self._shape.chunk and end != self._shape.size):
            raise PluginError(f"a disk was given out of order: {offset}+{length} after {self._position}")
        self._position = end
        return -(-length // self._shape.chunk)

    def same(self, offset: int, data: Buffer) -> bool:
        """Compare a chunk with the base's by their ids."""
        index = offset // self._shape.chunk
        if self._base is None or index >= self._base.shape.chunks:
            return False
        is_zero = bytes(data) == self._zeros[: len(data)]
        chunk_id = ZERO_ID if is_zero else self._session.chunk_id(ChunkKind.DATA, data)
        return self._base.node(0, index) == chunk_id

    def last_data(self, offset: int, length: int) -> int | None:
        """Look in the base's map."""
        if self._base is None:
            return None
        found = self._base.last_data(offset // self._shape.chunk, -(-(offset + length) // self._shape.chunk))
        return None if found is None else found * self._shape.chunk

    def finish(self) -> tuple[dict[str, Any], DiskCounts]:
        """Wait for the workers and store the rest of the map."""
        self._collect(wait=True)
        root = self._map.finish()
        return {"map": root.hex()}, self.progress()

    def progress(self) -> DiskCounts:
        """Return the counts so far."""
        return DiskCounts(self._map.changed, self._stored, self._zero, self._known, self._map.samples)

    def _collect(self, *, wait: bool) -> None:
        while self._pending:
            step = self._pending[0]
            if isinstance(step, Future):
                if not wait and not step.done():
                    return
                self._take(step.result())
            else:
                step()
            self._pending.popleft()

    def _take(self, result: _Stored) -> None:
        self._stored += result.stored
        self._known += result.known
        self._zero += result.zero
        self._map.data(b"".join(result.ids))

    def _store(self, data: Buffer) -> _Stored:
        """In a worker: store a block's chunks."""
        session, step, zeros = self._session, self._shape.chunk, self._zeros
        solid = data if isinstance(data, (bytes, bytearray)) else bytes(data)
        view = memoryview(solid)
        ids: list[bytes] = []
        fresh_ids: list[bytes] = []
        fresh: list[memoryview] = []
        zero = 0
        for start in range(0, len(view), step):
            chunk = view[start : start + step]
            pattern = zeros if len(chunk) == step else zeros[: len(chunk)]
            if solid.startswith(pattern, start):  # memcmp without a copy
                ids.append(ZERO_ID)
                zero += len(chunk)
                continue
            chunk_id = session.chunk_id(ChunkKind.DATA, chunk)
            ids.append(chunk_id)
            fresh_ids.append(chunk_id)
            fresh.append(chunk)
        stored, known = session.put(ChunkKind.DATA, fresh_ids, fresh)
        return _Stored(ids, stored, known, zero)

    def _store_node(self, node: bytes) -> bytes:
        node_id, stored = self._session.put_node(node)
        self._stored += stored
        return node_id


def base_map(content: dict[str, Any]) -> bytes:
    """Return the root id in a point's disk content. Raises `Corrupt`."""
    root = content.get("map")
    try:
        data = bytes.fromhex(root) if isinstance(root, str) else b""
    except ValueError:
        data = b""
    if len(data) != len(ZERO_ID):
        raise Corrupt("the restore point's disk has no valid map")
    return data
