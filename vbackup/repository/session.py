"""A writer session: chunks that are new become packs, packs become known through index objects, points come last.

Every step is safe to die at: a pack that no index lists and an index that no point needs are garbage, and the next
session finds them again (see `ChunkStore.look`). PRUNE.md says what a session owes to others. Nothing here grows with
the disk: chunks under way are bounded by a budget, packs by the uploads in flight, and what is known of new chunks
goes to disk with every index object.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from vbackup.api import (
    AlreadyExists,
    Buffer,
    Codec,
    Corrupt,
    Interrupted,
    MachineDescription,
    Point,
    PointDisk,
    Unsupported,
    VBackupError,
)
from vbackup.repository.budget import ByteBudget
from vbackup.repository.catalogue import Catalogue
from vbackup.repository.diskmap import DiskMap, Shape
from vbackup.repository.diskwriter import RepositoryDiskWriter, base_map
from vbackup.repository.index import write_index
from vbackup.repository.layout import INDEX_ENTRIES, KEYS, REPOSITORY, pack_key
from vbackup.repository.locks import Locks
from vbackup.repository.nodes import NodesAhead
from vbackup.repository.packs import PackBuilder, is_free
from vbackup.repository.points import point_key, put_point, write_body, write_point
from vbackup.repository.presence import Presence
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.store import ChunkStore

_IN_FLIGHT = 48 << 20
"""Plain bytes that all disks of a session together have under way."""
_UPLOADS = 2
_BATCH = 1 << 20
"""Bytes of blobs that go into a pack at once: threads that encode meet there."""
_LOOKUP = 4096  # chunks


class Blob(NamedTuple):
    """An encoded chunk: its id, the encoded `Origin` of its session, its bytes, and the size of its plain bytes."""

    id: bytes
    origin: bytes
    data: bytes
    size: int


class Session:
    """Takes the points of one run. Thread-safe."""

    def __init__(
        self,
        store: ChunkStore,
        catalogue: Catalogue,
        codecs: Sequence[Codec],
        chunk_size: int,
        locks: Locks,
        *,
        is_prune: bool = False,
    ) -> None:
        self._store = store
        self._chunk_size = chunk_size
        self._locks = locks
        self._catalogue = catalogue
        session = os.urandom(16)
        self.id = session.hex()
        self._chain = store.chains.new(session, codecs)
        self._presence = Presence(store.transport, store.keys, session, is_prune=is_prune)
        self.budget = ByteBudget(_IN_FLIGHT)
        threads = len(os.sched_getaffinity(0))
        self.workers = ThreadPoolExecutor(threads, "chunks")
        self._uploaders = ThreadPoolExecutor(_UPLOADS, "packs")
        self._lock = threading.Condition()
        self._flushing = threading.Lock()
        self._memories: list[
            bytearray
        ] = []  # of packs that are stored, for others: `_UPLOADS` and one are all there is
        self._builder = self._new_pack()
        self._claimed: set[bytes] = set()  # being encoded by somebody, not yet in a pack
        self._packed: set[bytes] = set()  # in a pack, not yet in the cache
        self._outstanding: set[PackBuilder] = set()  # full, not yet stored
        self._presence.announce()
        try:
            look = store.look(adopt=not is_prune)
            if not is_prune:  # which has to end sessions of the dead before anything can be repaired
                look.need_certainty()
            with ThreadPoolExecutor(1, "declare") as aside:
                declared = aside.submit(self._presence.declare, look.condemned)
                # Only now: a base that was there before the condemnations were listed may have been pruned since.
                self._bases = {base_map(disk.content) for point in catalogue.points() for disk in point.disks}
            declared.result()
        except BaseException:
            self._presence.end()
            raise
        self._trust = look.trust
        self._must_look = store.is_doubtful or bool(look.condemned)
        self._unlisted = look.adopted  # stored, not yet in an index object
        self._notes = tuple(look.notes)
        self._indexing = threading.Lock()
        self._failure: BaseException | None = None

    @property
    def block_size(self) -> int:
        """Disk writers take whole chunks."""
        return self._chunk_size

    @property
    def notes(self) -> Sequence[str]:
        """What was damaged or missing in the store when the session began."""
        return self._notes

    def check(self) -> None:
        """Raise the first failure of the store, if there was one, or that the session was ended from outside."""
        with self._lock:
            self._raise_failure()
        self._presence.check()

    def base_problem(self, base: PointDisk) -> str | None:
        """Say whether a disk's chunks are all where they may be built on; see PRUNE.md.

        They are looked for one by one only when packs are missing, damaged or condemned.
        """
        try:
            if base_map(base.content) not in self._bases:
                return "the restore point before was deleted"
            lost = self._unknown(self.tree(base)) if self._must_look else 0
            if lost:
                return f"the restore point before needs {lost} chunks of packs that are missing, damaged or pruned"
        except Corrupt as error:
            return f"the restore point before is damaged: {error.message}"
        except Unsupported as error:
            return f"the restore point before cannot be read here: {error.message}"
        return None

    def _unknown(self, tree: DiskMap) -> int:
        """Count chunks of a map, its nodes included, that may not be built on."""
        lost = 0
        batch: set[bytes] = set()
        for ids in tree.needs():
            batch |= ids
            if len(batch) >= _LOOKUP:
                lost += len(batch) - len(self._store.cache.known(list(batch), self._trust))
                batch.clear()
        return lost + len(batch) - len(self._store.cache.known(list(batch), self._trust))

    def tree(self, disk: PointDisk) -> DiskMap:
        """Return the map of a disk of a point that is here."""
        shape = Shape(disk.size, self._chunk_size)
        return DiskMap(shape, base_map(disk.content), NodesAhead(shape.depth, self._load_nodes, careful=True).load)

    def disk(self, size: int, base: PointDisk | None) -> RepositoryDiskWriter:
        """Begin a disk."""
        before = None if base is None else self.tree(base)
        return RepositoryDiskWriter(self, Shape(size, self._chunk_size), before)

    def file(self, data: bytes) -> dict[str, Any]:
        """Keep a small file as chunks."""
        parts = [data[i : i + self._chunk_size] for i in range(0, len(data), self._chunk_size)]
        ids = [self.chunk_id(ChunkKind.FILE, part) for part in parts]
        self.put(ChunkKind.FILE, ids, parts)
        return {"size": len(data), "chunks": [chunk.hex() for chunk in ids]}

    def commit(self, point: Point, description: MachineDescription) -> None:
        """Flush all that any point of this session may need, then write the point; it counts if we still do."""
        self.commit_with(point, write_body(self._chain, point, description))

    def commit_with(self, point: Point, body: bytes) -> None:
        """Commit a point with a body that was made before; see `points`."""
        self.flush()
        point = point.model_copy(update={"locked_until": self._locks.extend(self._needed_keys())})
        data = write_point(self._store.keys, self._chain, point, body)
        try:
            put_point(self._store.transport, point.id, data, if_absent=self._store.puts_if_absent)
        except AlreadyExists:  # nothing of ours will arrive
            raise
        except VBackupError:
            self._presence.linger()
            raise
        self._locks.extend([point_key(point.id)])
        try:
            self._presence.check()
        except Interrupted as error:
            self.fail(error)
            self._catalogue.give_up([point.id])
            raise
        self._catalogue.remember(point.id)
        with self._lock:
            self._bases |= {base_map(disk.content) for disk in point.disks}

    def _needed_keys(self) -> Iterator[str]:
        """Yield what a point may need: what opens the repository, and all packs that may be built on."""
        yield REPOSITORY
        yield from (info.key for info in self._store.transport.list(KEYS))
        packs = self._store.cache.packs()
        yield from (pack_key(name) for name in packs if self._trust.holds(packs[name].number))

    # -- used by disk writers -------------------------------------------------------------------------------------

    def chunk_id(self, kind: ChunkKind, data: Buffer) -> bytes:
        """Name a chunk."""
        return self._store.keys.chunk_id(kind, data)

    def put(self, kind: ChunkKind, ids: Sequence[bytes], chunks: Sequence[Buffer]) -> tuple[int, int]:
        """Store those chunks that are new; return bytes of blobs stored and plain bytes that were already known.

        See `take`.
        """
        plain = dict(zip(ids, chunks, strict=True))
        fresh: set[bytes] = set()

        def encoded(new: Sequence[bytes]) -> Iterator[Blob]:
            for chunk_id in new:
                blob = self._chain.encode(kind, chunk_id, plain[chunk_id])
                fresh.add(chunk_id)
                yield Blob(chunk_id, self._chain.encoded_origin, blob, len(plain[chunk_id]))

        stored = self.take(kind, plain, encoded)
        return stored, sum(map(len, chunks)) - sum(len(plain[chunk_id]) for chunk_id in fresh)

    def take(self, kind: ChunkKind, ids: Iterable[bytes], blobs: Callable[[Sequence[bytes]], Iterable[Blob]]) -> int:
        """Store those chunks that are new, with a blob for each of these from ``blobs``; return the blobs' bytes.

        On return all of them are in packs, also those that somebody else was storing at the same time: when that
        fails, it is done here.
        """
        stored = 0
        left = list(dict.fromkeys(ids))
        while left:
            fresh, others = self._claim(left)
            try:
                for batch in _batches(blobs([chunk_id for chunk_id in left if chunk_id in fresh])):
                    self._add(kind, batch)
                    fresh.difference_update(blob.id for blob in batch)
                    stored += sum(len(blob.data) for blob in batch)
            finally:
                self._unclaim(fresh)
            left = [chunk_id for chunk_id in left if chunk_id in others]
            self._wait_for(others)
        return stored

    def put_node(self, node: bytes) -> tuple[bytes, int]:
        """Store a disk map's node; return its id and the bytes of blobs stored."""
        node_id = self.chunk_id(ChunkKind.NODE, node)
        return node_id, self.put(ChunkKind.NODE, [node_id], [node])[0]

    def _load_nodes(self, ids: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Load nodes, those that can be; of the first one it is an error if it cannot."""
        plain, failures = self._store.read_some(ChunkKind.NODE, ids)
        if ids[0] in failures:
            raise failures[ids[0]]
        return plain

    # -- packs ----------------------------------------------------------------------------------------------------

    def _claim(self, ids: Sequence[bytes]) -> tuple[set[bytes], set[bytes]]:
        """Return those ids that the caller must store, and those that others are storing just now."""
        with self._lock:
            self._raise_failure()
            unknown = {i for i in ids if i not in self._packed}
        unknown -= self._store.cache.known(list(unknown), self._trust)
        with self._lock:
            unknown -= self._packed
            others = unknown & self._claimed
            fresh = unknown - others
            self._claimed |= fresh
        return fresh, others

    def _unclaim(self, ids: set[bytes]) -> None:
        if ids:
            with self._lock:
                self._claimed -= ids
                self._lock.notify_all()

    def _wait_for(self, ids: set[bytes]) -> None:
        """Wait until nobody is storing ``ids`` any more. Whoever waits holds no claim, so there is no circle."""
        if ids:
            with self._lock:
                self._wait(lambda: not ids & self._claimed)

    def copy(self, origin: bytes, chunk_id: bytes, kind: int, blob: bytes, size: int) -> None:
        """Store a blob of another session as it is."""
        self._add(kind, [Blob(chunk_id, origin, blob, size)])

    def _add(self, kind: int, blobs: Sequence[Blob]) -> None:
        """Append to the pack that is being filled; a slow store slows the copying down, packs do not pile up."""
        with self._lock:
            self._raise_failure()
            for blob in blobs:
                while self._builder.is_full:
                    self._wait(lambda: len(self._outstanding) < _UPLOADS or not self._builder.is_full)
                    self._upload_if_full()
                self._builder.add(blob.origin, blob.id, kind, blob.data, blob.size)
                self._claimed.discard(blob.id)
                self._packed.add(blob.id)
            self._upload_if_full()
            self._lock.notify_all()

    def _upload_if_full(self) -> None:
        """Holding the lock."""
        if self._builder.is_full and len(self._outstanding) < _UPLOADS:
            self._upload()

    def _upload(self) -> None:
        """Let the pack be stored, and begin another; holding the lock."""
        builder, self._builder = self._builder, self._new_pack()
        self._outstanding.add(builder)
        future = self._uploaders.submit(self._put_pack, builder)
        future.add_done_callback(lambda future: self._uploaded(builder, future))

    def _new_pack(self) -> PackBuilder:
        memory = self._memories.pop() if self._memories else None
        return PackBuilder(self._store.keys, self._chain.encoded_origin, memory)

    def _uploaded(self, builder: PackBuilder, future: Future[None]) -> None:
        error = Interrupted("the session has ended") if future.cancelled() else future.exception()
        if error is not None:
            self.fail(error)
        with self._lock:
            self._outstanding.discard(builder)
            self._lock.notify_all()
            if is_free(builder.memory):
                self._memories.append(builder.memory)

    def _put_pack(self, builder: PackBuilder) -> None:
        pack, data = builder.finish()
        self._store.transport.put(pack_key(pack.name), data)
        with contextlib.suppress(BufferError):  # a view of it that somebody keeps stays valid
            data.release()
        with self._lock:
            self._unlisted.append(pack)
            full = sum(len(pack.entries) for pack in self._unlisted) >= INDEX_ENTRIES
        if full:
            self._put_index()

    def _put_index(self) -> None:
        """List all packs that are stored and in no index; they stay unlisted until the index object is there."""
        with self._indexing:
            with self._lock:
                packs = list(self._unlisted)
            if not packs:
                return
            key, sealed = write_index(self._store.keys, packs)
            self._store.transport.put(key, sealed)
            self._trust.add(self._store.cache.add(key, packs))
            with self._lock:
                del self._unlisted[: len(packs)]
                for pack in packs:
                    self._packed.difference_update(entry.id for entry in pack.entries)

    def flush(self) -> None:
        """Wait until all that was put before now is in stored packs that a stored index lists."""
        with self._flushing:
            with self._lock:
                self._raise_failure()
                if self._builder.entries:
                    self._wait(lambda: len(self._outstanding) < _UPLOADS)
                    self._upload()
                outstanding = set(self._outstanding)
                self._wait(lambda: not outstanding & self._outstanding)
            self._put_index()

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._lock.wait_for(lambda: self._failure is not None or condition())
        self._raise_failure()

    # -- ending ---------------------------------------------------------------------------------------------------

    def fail(self, error: BaseException) -> None:
        """Remember the first failure: no point may be committed after it, since chunks may be missing."""
        with self._lock:
            self._failure = self._failure or error
            self._lock.notify_all()

    def _raise_failure(self) -> None:
        if isinstance(self._failure, VBackupError):
            raise type(self._failure)(
                self._failure.message, hint=self._failure.hint, transient=self._failure.transient
            ) from self._failure
        if self._failure is not None:
            raise self._failure

    def close(self, *, keep: bool) -> None:
        """End the session; with ``keep`` what is not in an index yet is flushed, so that a later run finds it."""
        try:
            if keep and self._failure is None:
                self.flush()
            else:
                self.fail(Interrupted("the session has ended"))
        finally:
            self.workers.shutdown(wait=True, cancel_futures=True)
            self._uploaders.shutdown(wait=True, cancel_futures=True)
            self._presence.end()


def _batches(blobs: Iterable[Blob]) -> Iterator[list[Blob]]:
    batch: list[Blob] = []
    size = 0
    for blob in blobs:
        batch.append(blob)
        size += len(blob.data)
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
