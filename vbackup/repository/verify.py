"""Verification: everything that points need is read, decrypted, decompressed, hashed and compared with the map."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from vbackup.api import Corrupt, Damage, Point, PointDisk
from vbackup.repository.diskmap import DiskMap, Shape
from vbackup.repository.diskwriter import base_map
from vbackup.repository.layout import FANOUT, ID_SIZE, ZERO_ID
from vbackup.repository.reader import damage, read_file
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.store import ChunkStore, PackGone

_STEP = 4 << 20  # bytes per task
_AHEAD = 8  # tasks
_ATTEMPTS = 8


class _Checked(NamedTuple):
    bad: list[tuple[int, int, Corrupt]]  # offset and length in bytes, and why
    packs: set[bytes]


class Verifier:
    """Checks points one after another and skips subtrees that it has seen: later points cost what they changed."""

    def __init__(self, store: ChunkStore, chunk_size: int, progress: Callable[[int], None]) -> None:
        self._store = store
        self._chunk_size = chunk_size
        self._progress = progress
        self._good: set[bytes] = set()  # nodes whose whole subtree was read well
        self._packs: set[bytes] = set()  # packs whose own lists were checked
        self.damage: list[Damage] = []

    def check(self, points: Sequence[Point]) -> list[Damage]:
        """Check points; return what cannot be read. Errors of the store itself are raised, not reported as damage."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1, "verify") as pool:
            for point in points:
                for disk in point.disks:
                    self._disk(pool, point, disk, _ATTEMPTS)
                for name in point.files:
                    self._file(point, name)
        return self.damage

    def _file(self, point: Point, name: str) -> None:
        try:
            read_file(self._store, point, name)
        except Corrupt as error:
            self.damage.append(damage(point, name, 0, 0, error))

    def _disk(self, pool: ThreadPoolExecutor, point: Point, disk: PointDisk, attempts: int) -> None:
        """Check a disk; once more when packs went that it was read from, for a prune has written them anew."""
        before = len(self.damage)
        visited: list[bytes] = []
        packs: set[bytes] = set()
        try:
            tree = DiskMap(Shape(disk.size, self._chunk_size), base_map(disk.content), self._node)
            pending: deque[Future[_Checked]] = deque()
            step = max(1, _STEP // self._chunk_size)
            for first, ids in self._leaves(point, disk, tree, tree.shape.depth, 0, tree.root, visited):
                for start in range(0, len(ids), step):
                    pending.append(pool.submit(self._chunks, tree.shape, first + start, ids[start : start + step]))
                while len(pending) > _AHEAD:
                    self._collect(point, disk, packs, pending.popleft().result())
            while pending:
                self._collect(point, disk, packs, pending.popleft().result())
            packs |= self._packs_of(visited)
        except Corrupt as error:
            self.damage.append(damage(point, disk.key, 0, disk.size, error))
        wrong = [each for each in pool.map(self._store.check_pack, packs - self._packs) if each is not None]
        if attempts > 1 and any(isinstance(each, PackGone) for each in wrong):
            del self.damage[before:]
            self._disk(pool, point, disk, attempts - 1)
            return
        self.damage += [damage(point, disk.key, 0, 0, each) for each in wrong]
        self._packs |= packs
        if len(self.damage) == before:
            self._good.update(visited)

    def _collect(self, point: Point, disk: PointDisk, packs: set[bytes], checked: _Checked) -> None:
        packs |= checked.packs
        for offset, length, error in checked.bad:
            last = self.damage[-1] if self.damage else None
            if (
                last is not None
                and (last.point, last.disk, last.reason) == (point.id, disk.key, error.message)
                and last.offset + last.length == offset
            ):
                self.damage[-1] = damage(point, disk.key, last.offset, last.length + length, error)
            else:
                self.damage.append(damage(point, disk.key, offset, length, error))

    def _node(self, node_id: bytes) -> bytes:
        return self._store.read(ChunkKind.NODE, [node_id])[node_id]

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

    def _chunks(self, shape: Shape, first: int, ids: list[bytes]) -> _Checked:
        """In a worker: read chunks."""
        wanted = [i for i in ids if i != ZERO_ID]
        _, failures = self._store.read_some(ChunkKind.DATA, wanted)
        bad: list[tuple[int, int, Corrupt]] = []
        for number, chunk_id in enumerate(ids):
            length = shape.chunk_length(first + number)
            if chunk_id in failures:
                bad.append(((first + number) * shape.chunk, length, failures[chunk_id]))
            self._progress(length)
        return _Checked(bad, self._packs_of(wanted))

    def _packs_of(self, ids: list[bytes]) -> set[bytes]:
        return {places[0].pack for places in self._store.locate(ids).values()}  # the best of several
