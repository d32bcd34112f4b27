"""Points taken over from another repository of the same family: blobs and descriptions travel as they are.

Only disk maps are read, which every key holder can. Equal content has equal ids here and there, so a map is compared
with that of a point that is here already, and of what is left only chunks are fetched that are nowhere here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from vbackup.api import Corrupt, DiskProgress, Extent, Kind, Point, PointDisk
from vbackup.api.exchange import TakenOver
from vbackup.repository.blobs import BlobReader
from vbackup.repository.diskmap import DiskMap, MapBuilder
from vbackup.repository.layout import PACK_ENTRIES
from vbackup.repository.points import body_elsewhere, check_body, get_point, open_head
from vbackup.repository.reader import DiskReader
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.session import Blob, Session
from vbackup.repository.store import ChunkStore

_BATCH = PACK_ENTRIES
"""Chunks that are asked for at once: so many that their packs are mostly read once, and whole."""
_PROGRESS_SECONDS = 0.2


class Exchange:
    """Takes over one point of another repository, ``source``, into a session."""

    def __init__(
        self,
        source: ChunkStore,
        session: Session,
        chunk_size: int,
        point: Point,
        report: Callable[[DiskProgress], None],
    ) -> None:
        """``report`` is called a few times a second; what it raises ends the work."""
        self._source = source
        self._session = session
        self._chunk_size = chunk_size
        self._point = point
        self._report = report
        self._reader = BlobReader(source)

    def take(self, base: Point | None) -> TakenOver:
        """Take the point over, and commit it. Raises: `Corrupt` naming an object of the source; `NotFound`."""
        point = self._point
        stored = get_point(self._source.transport, point.id)
        check_body(open_head(self._source.keys, point.id, stored.origin, stored.head), stored)
        bases = {disk.key: disk for disk in base.disks} if base else {}
        disks = tuple(self._disk(disk, bases.get(disk.key)) for disk in point.disks)
        for content in point.files.values():
            ids = [bytes.fromhex(chunk) for chunk in content["chunks"]]
            self._session.take(ChunkKind.FILE, ids, lambda new: self._reader.blobs(ChunkKind.FILE, new))
        made = point.model_copy(update={"disks": disks})
        self._session.commit_with(made, body_elsewhere(stored))
        return TakenOver(made, self._reader.read)

    def _disk(self, disk: PointDisk, base: PointDisk | None) -> PointDisk:
        if base is not None and self._session.base_problem(base) is None:
            try:
                return self._take_disk(disk, self._session.tree(base))
            except Corrupt:  # perhaps it is the base that is damaged; what is here by now is not fetched again
                return self._take_disk(disk, None)
        return self._take_disk(disk, None)

    def _take_disk(self, disk: PointDisk, base: DiskMap | None) -> PointDisk:
        tree = DiskReader(self._source, self._chunk_size, self._point, disk).map
        nodes = 0

        def put_node(node: bytes) -> bytes:
            nonlocal nodes
            node_id, stored = self._session.put_node(node)
            nodes += stored
            return node_id

        done = _Progress(disk, self._reader, self._report)
        builder = MapBuilder(tree.shape, base, put_node)
        stored = 0
        for ids in self._new_ids(tree, base, builder, done):
            stored += self._take_chunks(disk, ids, done)
        root = builder.finish()
        done.finish()
        return disk.model_copy(
            update={"content": {"map": root.hex()}, "changed": builder.changed, "stored": stored + nodes}
        )

    def _new_ids(
        self, tree: DiskMap, base: DiskMap | None, builder: MapBuilder, done: _Progress
    ) -> Iterator[Sequence[bytes]]:
        """Build the map; yield the ids of what differs from the base, many at once."""
        chunk = tree.shape.chunk
        batch: list[bytes] = []
        for extent in tree.pieces(base):
            first, end = extent.offset // chunk, -(-extent.end // chunk)
            if extent.kind is Kind.UNCHANGED:
                builder.unchanged(end - first)
            elif extent.kind is Kind.ZERO:
                builder.zero(end - first)
            else:
                ids = list(tree.ids(first, end))
                builder.data(b"".join(ids))
                batch += ids
                if len(batch) >= _BATCH:
                    yield batch
                    batch = []
            done.took(extent)
        yield batch

    def _take_chunks(self, disk: PointDisk, ids: Sequence[bytes], done: _Progress) -> int:
        def blobs(new: Sequence[bytes]) -> Iterator[Blob]:
            for blob in self._reader.blobs(ChunkKind.DATA, new):
                done.report()
                yield blob

        try:
            return self._session.take(ChunkKind.DATA, ids, blobs)
        except Corrupt as error:
            point = self._point
            raise Corrupt(
                f"disk {disk.key} of restore point {point.machine}@{point.id[:8]} cannot be copied: {error.message}",
                hint="run `vbackup verify` for all that is affected",
            ) from error


class _Progress:
    """How far a disk is."""

    def __init__(self, disk: PointDisk, reader: BlobReader, report: Callable[[DiskProgress], None]) -> None:
        self._disk = disk
        self._reader = reader
        self._report = report
        self._before = reader.read
        self._done = self._unchanged = self._zero = 0
        self._next = 0.0

    def took(self, extent: Extent) -> None:
        """Note how far the map was read, and what was there."""
        self._unchanged += extent.length if extent.kind is Kind.UNCHANGED else 0
        self._zero += extent.length if extent.kind is Kind.ZERO else 0
        self._done = extent.end
        self.report()

    def finish(self) -> None:
        """Report that all is done."""
        self._next = 0.0
        self.report()

    def report(self) -> None:
        """Report, unless that was done a moment ago."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PROGRESS_SECONDS
            read = self._reader.read - self._before
            disk = self._disk
            self._report(DiskProgress(disk.key, disk.size, self._done, read, self._unchanged, self._zero, 0))
