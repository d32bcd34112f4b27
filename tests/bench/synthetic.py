"""A repository as years of backups leave it, without their bytes: real index objects, disk maps and points.

The packs of disk maps are real. Those of data are files of the right name and size, with nothing in them: nothing that
is measured here reads them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support import CODECS, codec
from vbackup.api import Point, PointDisk
from vbackup.repository.chunks import Chain, Chains
from vbackup.repository.index import write_index
from vbackup.repository.layout import DEFAULT_CHUNK_SIZE, FANOUT, ID_SIZE, INDEX_ENTRIES, pack_key
from vbackup.repository.packs import Entry, Pack, PackBuilder
from vbackup.repository.points import point_key, write_point
from vbackup.repository.sealing import ChunkKind, Keys

CHUNK = DEFAULT_CHUNK_SIZE
BLOB = 40 << 10
"""Bytes of a chunk in its pack, on average."""
IN_PACK = 800
MACHINES = 20
RUN = 20
"""Points of one session."""
SAMPLE = 1 << 16
_NODE = FANOUT * ID_SIZE
_NEEDED = (IN_PACK,) * 5 + (IN_PACK // 2,) * 4 + (0,)
"""Chunks of a pack that points need, by turns: 70 % of all."""


class Tree:
    """A disk map whose chunks change a few at a time. ``store`` keeps a node and returns its id."""

    def __init__(self, ids: bytes, store: Callable[[bytes], bytes]) -> None:
        self._store = store
        self._levels = [bytearray(ids)]
        while len(self._levels) == 1 or len(self._levels[-1]) > ID_SIZE:
            below = self._levels[-1]
            nodes = (store(bytes(below[at : at + _NODE])) for at in range(0, len(below), _NODE))
            self._levels.append(bytearray(b"".join(nodes)))

    @property
    def size(self) -> int:
        """Of the disk, in bytes."""
        return len(self._levels[0]) // ID_SIZE * CHUNK

    @property
    def root(self) -> bytes:
        """The root's id."""
        return bytes(self._levels[-1])

    def change(self, chunk: int, other: int) -> None:
        """Write to one chunk what another one holds."""
        leaf = self._levels[0]
        leaf[chunk * ID_SIZE : (chunk + 1) * ID_SIZE] = leaf[other * ID_SIZE : (other + 1) * ID_SIZE]
        for below, level in zip(self._levels, self._levels[1:], strict=False):
            chunk //= FANOUT
            node = bytes(below[chunk * _NODE : (chunk + 1) * _NODE])
            level[chunk * ID_SIZE : (chunk + 1) * ID_SIZE] = self._store(node)


class Synthetic:
    """Fills the store of an empty repository, a directory."""

    def __init__(self, store: Path, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._chains = Chains(keys, codec)
        self._rng = random.Random(1)
        self._unlisted: list[Pack] = []
        self._chain = self._session()
        self._nodes = PackBuilder(keys, self._chain.encoded_origin)
        self._known: set[bytes] = set()
        self.packs = 0

    def fill(self, chunks: int, points: int) -> list[bytes]:
        """Make packs with ``chunks`` chunks of data, and ``points`` points; return some of the chunks."""
        needed = bytearray()
        for first in range(0, chunks, IN_PACK):
            needed += self._pack(min(IN_PACK, chunks - first))
        part = len(needed) // ID_SIZE // MACHINES * ID_SIZE
        trees = [Tree(bytes(needed[i * part : (i + 1) * part]), self._node) for i in range(MACHINES)]
        for number in range(points):
            self._point(number, trees[number % MACHINES])
        self._put_nodes()
        self._put_index()
        starts = (self._rng.randrange(len(needed) // ID_SIZE) * ID_SIZE for _ in range(SAMPLE))
        return [bytes(needed[start : start + ID_SIZE]) for start in starts]

    def _session(self) -> Chain:
        return self._chains.new(os.urandom(16), [codec(name) for name in CODECS])

    def _pack(self, count: int) -> bytes:
        """Add a pack of data; return the ids that points need."""
        ids = [os.urandom(ID_SIZE) for _ in range(count)]
        sizes = [self._rng.randrange(BLOB // 2, BLOB * 3 // 2) for _ in ids]
        entries, at = [], 1 << 10
        for chunk, size in zip(ids, sizes, strict=True):
            entries.append(Entry(chunk, ChunkKind.DATA, 0, at, size, CHUNK))
            at += size
        pack = Pack(os.urandom(ID_SIZE), at + 48 * count, (self._chain.encoded_origin,), entries)
        self._file(pack_key(pack.name), b"", pack.size)
        needed = ids[: _NEEDED[self.packs % len(_NEEDED)]]
        self._list(pack)
        return b"".join(needed)

    def _node(self, node: bytes) -> bytes:
        chunk = self._keys.chunk_id(ChunkKind.NODE, node)
        if chunk not in self._known:
            self._known.add(chunk)
            blob = self._chain.encode(ChunkKind.NODE, chunk, node)
            self._nodes.add(self._chain.encoded_origin, chunk, ChunkKind.NODE, blob, len(node))
            if self._nodes.is_full:
                self._put_nodes()
        return chunk

    def _put_nodes(self) -> None:
        if self._nodes.entries:
            pack, data = self._nodes.finish()
            self._file(pack_key(pack.name), data)
            self._list(pack)
        self._nodes = PackBuilder(self._keys, self._chain.encoded_origin)

    def _list(self, pack: Pack) -> None:
        self.packs += 1
        self._unlisted.append(pack)
        if sum(len(each.entries) for each in self._unlisted) >= INDEX_ENTRIES:
            self._put_index()

    def _put_index(self) -> None:
        if self._unlisted:
            self._file(*write_index(self._keys, self._unlisted))
            self._unlisted.clear()
            self._chain = self._session()

    def _point(self, number: int, tree: Tree) -> None:
        if number >= MACHINES:
            size = tree.size // CHUNK
            tree.change(self._rng.randrange(size), self._rng.randrange(size))
        if number % RUN == 0:
            self._chain = self._session()
        point = make_point(number, tree.root, tree.size)
        self._file(point_key(point.id), write_point(self._keys, self._chain, point, os.urandom(3000)))

    def _file(self, key: str, data: bytes, size: int | None = None) -> None:
        path = self._store / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if size is not None:
            os.truncate(path, size)


def make_point(number: int, root: bytes, size: int) -> Point:
    """Return the point of a machine that was backed up each night."""
    machine, night = number % MACHINES, number // MACHINES
    disk = PointDisk(
        key="vda", size=size, content={"map": root.hex()}, read=1 << 30, changed=1 << 29, stored=1 << 28,
        samples=tuple(range(0, 16 * CHUNK, CHUNK)),
    )  # fmt: skip
    return Point(
        id=os.urandom(16).hex(), machine=f"machine-{machine}", hypervisor="lab", hypervisor_type="libvirt",
        machine_id=f"{machine:032x}", job="nightly", time=datetime(2000, 1, 1, 2, tzinfo=UTC) + timedelta(days=night),
        sequence=night + 1, seconds=60.0, disks=(disk,), quiesced=True,
    )  # fmt: skip


def some_misses(ids: Sequence[bytes]) -> list[bytes]:
    """Return as many ids that no repository has."""
    return [os.urandom(ID_SIZE) for _ in ids]
