"""Verification: everything that points need is read, decrypted, decompressed, hashed and compared with the map.

A disk is gone through in segments, and the chunks of each are read in the order of the packs: each chunk once, and
what lies together with one request. Later points cost what they changed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from vbackup.api import Corrupt, Damage, Point, PointDisk
from vbackup.repository.diskmap import DiskMap, Shape
from vbackup.repository.diskwriter import base_map
from vbackup.repository.fetch import Fetch, PackGone
from vbackup.repository.layout import FANOUT, ID_SIZE, ZERO_ID
from vbackup.repository.nodes import NodesAhead
from vbackup.repository.reader import damage, read_file
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.seen import Seen
from vbackup.repository.store import ChunkStore

_SEGMENT = 1 << 13
"""Chunks that are looked up, and put into the order of the packs, at once."""
_AHEAD = 2
"""Segments whose chunks are being read while the next one is looked up."""
_ATTEMPTS = 8


class _Segment(NamedTuple):
    """Chunks of a disk, whose ids and numbers are told, that are being read."""

    numbers: Sequence[int]
    ids: Sequence[bytes]
    wanted: Mapping[bytes, int]
    """Those that are read, and how many bytes of the disk each stands for."""
    fetch: Fetch


class Verifier:
    """Checks points one after another, and skips what it has seen. Used by one thread."""

    def __init__(self, store: ChunkStore, chunk_size: int, progress: Callable[[int], None]) -> None:
        self._store = store
        self._chunk_size = chunk_size
        self._progress = progress
        self._good: set[bytes] = set()  # nodes whose whole subtree was read well
        self._seen = Seen()
        self._checks: dict[bytes, Future[Corrupt | None]] = {}  # of packs' own lists
        self._told: set[bytes] = set()  # packs whose checks were looked at
        self.damage: list[Damage] = []

    def check(self, points: Sequence[Point]) -> list[Damage]:
        """Check points; return what cannot be read. Errors of the store itself are raised, not reported as damage."""
        for point in points:
            for disk in point.disks:
                self._disk(point, disk, _ATTEMPTS)
            for name in point.files:
                self._file(point, name)
        return self.damage

    def _file(self, point: Point, name: str) -> None:
        try:
            read_file(self._store, point, name)
        except Corrupt as error:
            self.damage.append(damage(point, name, 0, 0, error))

    def _disk(self, point: Point, disk: PointDisk, attempts: int) -> None:
        """Check a disk; once more when packs went that it was read from, for a prune has written them anew."""
        before = len(self.damage)
        visited: list[bytes] = []
        packs: set[bytes] = set()
        try:
            self._read(point, disk, visited, packs)
            packs |= self._check_packs(self._packs_of(visited))
        except Corrupt as error:
            self.damage.append(damage(point, disk.key, 0, disk.size, error))
        checked = {name: self._checks[name].result() for name in packs - self._told}
        wrong = [each for each in checked.values() if each is not None]
        if attempts > 1 and any(isinstance(each, PackGone) for each in wrong):
            del self.damage[before:]
            self._seen = Seen()
            self._checks = {name: self._checks[name] for name in self._told}
            self._disk(point, disk, attempts - 1)
            return
        self.damage += [damage(point, disk.key, 0, 0, each) for each in wrong]
        self._told |= packs
        if len(self.damage) == before:
            self._good.update(visited)

    def _read(self, point: Point, disk: PointDisk, visited: list[bytes], packs: set[bytes]) -> None:
        """Read a disk; add the nodes of its map to ``visited``, and the packs of its chunks to ``packs``."""
        shape, root = Shape(disk.size, self._chunk_size), base_map(disk.content)
        tree = DiskMap(shape, root, NodesAhead(shape.depth, self._nodes, self._good).load)
        pending: deque[_Segment] = deque()
        try:
            leaves = self._leaves(point, disk, tree, shape.depth, 0, root, visited)
            for numbers, ids in _joined(leaves):
                pending.append(self._start(shape, numbers, ids, packs))
                if len(pending) > _AHEAD:
                    self._finish(point, disk, shape, packs, pending.popleft())
            while pending:
                self._finish(point, disk, shape, packs, pending.popleft())
        finally:
            for segment in pending:
                segment.fetch.cancel()

    def _nodes(self, ids: Sequence[bytes]) -> Mapping[bytes, bytes]:
        plain, failures = self._store.read_some(ChunkKind.NODE, ids)
        if ids[0] in failures:
            raise failures[ids[0]]
        return plain

    def _leaves(
        self, point: Point, disk: PointDisk, tree: DiskMap, level: int, index: int, node_id: bytes, visited: list[bytes]
    ) -> Iterator[tuple[int, list[bytes]]]:
        first, end = tree.shape.span(level, index)
        length = min(end * self._chunk_size, tree.shape.size) - first * self._chunk_size
        if node_id == ZERO_ID or node_id in self._good:
            self._progress(length)
            return
        try:
            joined = tree.children(level, node_id, index)
        except Corrupt as error:
            self.damage.append(damage(point, disk.key, first * self._chunk_size, length, error))
            return
        visited.append(node_id)
        ids = [joined[i : i + ID_SIZE] for i in range(0, len(joined), ID_SIZE)]
        if level == 1:
            yield first, ids
            return
        for number, child in enumerate(ids):
            yield from self._leaves(point, disk, tree, level - 1, index * FANOUT + number, child, visited)

    def _start(self, shape: Shape, numbers: Sequence[int], ids: Sequence[bytes], packs: set[bytes]) -> _Segment:
        """Begin to read those chunks that were not read before."""
        counts = Counter(ids)
        counts.pop(ZERO_ID, None)
        wanted = {chunk: count * shape.chunk for chunk, count in counts.items() if chunk not in self._seen}
        short = shape.chunk - shape.chunk_length(numbers[-1])
        if ids[-1] in wanted:
            wanted[ids[-1]] -= short
        self._progress(len(ids) * shape.chunk - short - sum(wanted.values()))
        places = {chunk: found[0] for chunk, found in self._store.locate(list(wanted)).items()}
        fetch = self._store.fetcher.start(ChunkKind.DATA, places, keep=False)
        packs |= self._check_packs({place.pack for place in places.values()})
        return _Segment(numbers, ids, wanted, fetch)

    def _check_packs(self, packs: set[bytes]) -> set[bytes]:
        """Begin to check the own lists of packs that were not met before; return ``packs``."""
        for name in packs - self._checks.keys():
            self._checks[name] = self._store.fetcher.pool.submit(self._store.lookout.check_pack, name)
        return packs

    def _finish(self, point: Point, disk: PointDisk, shape: Shape, packs: set[bytes], segment: _Segment) -> None:
        left = dict(segment.wanted)
        for read in segment.fetch.results():
            good = [chunk for chunk in read.ids if chunk not in read.failures]
            for chunk in good:
                self._seen.add(chunk)
            self._progress(sum(map(left.pop, good)))
        if not left:
            return
        _, failures = self._store.read_carefully(ChunkKind.DATA, list(left))
        self._progress(sum(left.values()))
        packs |= self._check_packs(self._packs_of(list(left)))
        for number, chunk in zip(segment.numbers, segment.ids, strict=True):
            if chunk in failures:
                self._lost(point, disk, number * shape.chunk, shape.chunk_length(number), failures[chunk])

    def _lost(self, point: Point, disk: PointDisk, offset: int, length: int, error: Corrupt) -> None:
        """Add damage, joined with what is just before it for the same reason."""
        last = self.damage[-1] if self.damage else None
        if (
            last is not None
            and (last.point, last.disk, last.reason) == (point.id, disk.key, error.message)
            and last.offset + last.length == offset
        ):
            self.damage[-1] = damage(point, disk.key, last.offset, last.length + length, error)
        else:
            self.damage.append(damage(point, disk.key, offset, length, error))

    def _packs_of(self, ids: list[bytes]) -> set[bytes]:
        return {places[0].pack for places in self._store.locate(ids).values()}  # the best of several


def _joined(leaves: Iterator[tuple[int, list[bytes]]]) -> Iterator[tuple[list[int], list[bytes]]]:
    """Join leaves, each with the number of its first chunk, to segments: numbers and ids of chunks."""
    numbers: list[int] = []
    ids: list[bytes] = []
    for first, chunks in leaves:
        numbers += range(first, first + len(chunks))
        ids += chunks
        if len(ids) >= _SEGMENT:
            yield numbers, ids
            numbers, ids = [], []
    if ids:
        yield numbers, ids
