"""Disk maps: Merkle trees over a disk's chunk ids.

The chunks of a disk are the leaves' entries: node (level, index) covers chunks ``[index * F**level, (index + 1) *
F**level)`` and holds the ids of its children, `FANOUT` of them or as many as the disk has. `ZERO_ID` stands for a
subtree of zeros. The same content makes the same tree, so two maps share every equal subtree, and whoever compares
them skips those.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vbackup.api import Corrupt, Extent, Kind, PluginError, merge
from vbackup.repository.layout import FANOUT, ID_SIZE, ZERO_ID

SAMPLES = 16
_UNITS: tuple[int, ...] = tuple(FANOUT**level for level in range(8))


def units(level: int) -> int:
    """Return how many chunks a whole node of a level covers."""
    return _UNITS[level]


class Shape(NamedTuple):
    """The size of a disk and of its chunks, in bytes; all else about a tree's form follows from them."""

    size: int
    chunk: int

    @property
    def chunks(self) -> int:
        """Chunks of the disk; the last one may be short."""
        return -(-self.size // self.chunk)

    @property
    def depth(self) -> int:
        """The level of the root, at least 1."""
        depth = 1
        while units(depth) < self.chunks:
            depth += 1
        return depth

    def nodes(self, level: int) -> int:
        """Nodes (or chunks, at level 0) that a level has."""
        return -(-self.chunks // units(level))

    def span(self, level: int, index: int) -> tuple[int, int]:
        """First and end chunk that a node covers."""
        unit = units(level)
        return index * unit, min((index + 1) * unit, self.chunks)

    def chunk_length(self, index: int) -> int:
        """Bytes of a chunk."""
        return min(self.chunk, self.size - index * self.chunk)


class DiskMap:
    """A stored map, read node by node as needed. Used by one thread at a time."""

    def __init__(self, shape: Shape, root: bytes, load: Callable[[bytes], bytes]) -> None:
        self.shape = shape
        self.root = root
        self._load = load
        self._cache: OrderedDict[bytes, bytes] = OrderedDict()

    def children(self, level: int, node_id: bytes, index: int) -> bytes:
        """Return the ids in a node, joined. Raises `Corrupt`."""
        first, end = self.shape.span(level, index)
        count = -(-(end - first) // units(level - 1))
        if node_id == ZERO_ID:
            return ZERO_ID * count
        node = self._cache.get(node_id)
        if node is None:
            node = self._cache[node_id] = self._load(node_id)
            if len(self._cache) > 64:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(node_id)  # the root is asked for each time
        if len(node) != count * ID_SIZE:
            raise Corrupt(f"a disk map's node has {len(node)} bytes instead of {count * ID_SIZE}")
        return node

    def node(self, level: int, index: int) -> bytes:
        """Return the id of a node, or of a chunk at level 0."""
        node_id, at = self.root, self.shape.depth
        while at > level and node_id != ZERO_ID:
            inside = index // units(at - level)
            position = index // units(at - level - 1) % FANOUT * ID_SIZE
            node_id = self.children(at, node_id, inside)[position : position + ID_SIZE]
            at -= 1
        return node_id

    def last_data(self, first: int, end: int) -> int | None:
        """Return the last chunk of ``[first, end)`` that is not zeros."""
        return self._last_data(self.shape.depth, 0, self.root, first, end)

    def _last_data(self, level: int, index: int, node_id: bytes, first: int, end: int) -> int | None:
        start, stop = self.shape.span(level, index)
        if node_id == ZERO_ID or start >= end or stop <= first:
            return None
        if level == 0:
            return index
        ids = self.children(level, node_id, index)
        for number in range(len(ids) // ID_SIZE - 1, -1, -1):
            child = ids[number * ID_SIZE : (number + 1) * ID_SIZE]
            found = self._last_data(level - 1, index * FANOUT + number, child, first, end)
            if found is not None:
                return found
        return None

    def ids(self, first: int, end: int) -> Iterator[bytes]:
        """Yield the ids of chunks ``[first, end)``."""
        while first < end:
            leaf = first // FANOUT
            stop = min(end, (leaf + 1) * FANOUT)
            ids = self.children(1, self.node(1, leaf), leaf)
            for position in range(first % FANOUT, first % FANOUT + stop - first):
                yield ids[position * ID_SIZE : (position + 1) * ID_SIZE]
            first = stop

    def needs(self) -> Iterator[set[bytes]]:
        """Yield the ids of everything stored that the map needs, its nodes included; some more than once."""
        stack = [(self.shape.depth, self.root)]
        yield {self.root} - {ZERO_ID}
        while stack:
            level, node_id = stack.pop()
            if node_id == ZERO_ID:
                continue
            node = self._load(node_id)
            ids = dict.fromkeys(node[at : at + ID_SIZE] for at in range(0, len(node), ID_SIZE))
            ids.pop(ZERO_ID, None)
            yield set(ids)
            if level > 1:
                stack += ((level - 1, child) for child in reversed(ids))

    def siblings(self, shape: Shape, level: int, index: int, count: int) -> bytes:
        """Return the ids of those leading nodes, of ``count`` of one parent, that cover just the same in ``shape``."""
        if level > self.shape.depth:
            return b""
        same = self.shape.nodes(level) if self.shape.size == shape.size else self.same_until(shape) // units(level)
        count = min(count, same - index)
        if count <= 0:
            return b""
        if level == self.shape.depth:
            return self.root
        parent = index // FANOUT
        ids = self.children(level + 1, self.node(level + 1, parent), parent)
        return ids[index % FANOUT * ID_SIZE :][: count * ID_SIZE]

    def same_until(self, shape: Shape) -> int:
        """Return how many chunks have the same length in ``shape``: all but, after a resize, a short last one."""
        mine = self.shape
        return shape.chunks if mine.size == shape.size else min(mine.size, shape.size) // shape.chunk

    def extents(self, base: DiskMap | None = None) -> Iterator[Extent]:
        """Yield the disk's extents as data and zero, and unchanged where ``base`` has the same; that is not read."""
        return merge(self.pieces(base))

    def pieces(self, base: DiskMap | None = None) -> Iterator[Extent]:
        """Like `extents`, joined within nodes only: the ids in a piece of data were just read."""
        return self._extents(self.shape.depth, 0, self.root, base)

    def _extents(self, level: int, index: int, ids: bytes, base: DiskMap | None) -> Iterator[Extent]:
        """Of nodes of one parent, from ``index`` on."""
        before = base.siblings(self.shape, level, index, len(ids) // ID_SIZE) if base else b""
        for kind, first, end in _kinds(ids, before):
            if level and kind is Kind.DATA:
                for number in range(first, end):
                    node_id = ids[number * ID_SIZE : (number + 1) * ID_SIZE]
                    children = self.children(level, node_id, index + number)
                    yield from self._extents(level - 1, (index + number) * FANOUT, children, base)
                continue
            offset = self.shape.span(level, index + first)[0] * self.shape.chunk
            stop = min(self.shape.span(level, index + end - 1)[1] * self.shape.chunk, self.shape.size)
            if stop > offset:
                yield Extent(offset, stop - offset, kind)


def _kinds(ids: bytes, before: bytes) -> Iterator[tuple[Kind, int, int]]:
    """Yield first and end of neighbours that are of one kind: what they are by their ids, and by those of the base."""
    if not before and ids.find(ZERO_ID) < 0:  # as most are
        yield Kind.DATA, 0, len(ids) // ID_SIZE
        return
    first, last = 0, None
    for number in range(len(ids) // ID_SIZE):
        at = slice(number * ID_SIZE, (number + 1) * ID_SIZE)
        kind = Kind.UNCHANGED if ids[at] == before[at] else Kind.ZERO if ids[at] == ZERO_ID else Kind.DATA
        if kind is not last and last is not None:
            yield last, first, number
            first = number
        last = kind
    if last is not None:
        yield last, first, len(ids) // ID_SIZE


class MapBuilder:
    """Builds a map from runs in ascending order, holding one node of each level.

    ``store`` keeps a node and returns its id. With a base, equal nodes keep the base's id without being stored, and
    what differs is counted.
    """

    def __init__(self, shape: Shape, base: DiskMap | None, store: Callable[[bytes], bytes]) -> None:
        self.shape = shape
        self.changed = 0
        self._base = base
        self._store = store
        self._position = 0
        self._nodes = [bytearray() for _ in range(shape.depth + 1)]
        self._root: bytes | None = None
        self._seen = 0
        self._samples: list[int] = []

    def data(self, ids: bytes) -> None:
        """Add the next chunks by their ids, joined."""
        done = 0
        while done < len(ids):
            count = min((len(ids) - done) // ID_SIZE, FANOUT - self._position % FANOUT)
            part = ids[done : done + count * ID_SIZE]
            self._compare(part)
            self._push(0, part)
            done += len(part)

    def zero(self, chunks: int) -> None:
        """Add chunks of zeros."""
        self._skip(chunks, self._zeros)

    def unchanged(self, chunks: int) -> None:
        """Add chunks as the base has them, which must have them."""
        if self._base is None or self._position + chunks > self._same_until():
            raise PluginError("a disk was called unchanged where the restore point before has nothing to compare with")
        self._skip(chunks, self._base_ids)

    def finish(self) -> bytes:
        """Return the root's id."""
        if self._position != self.shape.chunks:
            raise ValueError(f"the map has {self._position} chunks of {self.shape.chunks}")
        return ZERO_ID if self._root is None else self._root

    @property
    def samples(self) -> tuple[int, ...]:
        """Offsets of up to `SAMPLES` chunks that changed, each as likely as any other."""
        return tuple(sorted(self._samples))

    def _skip(self, chunks: int, known: Callable[[int, int, int], bytes]) -> None:
        """Add runs of siblings, each as high in the tree as ``known(level, index, count)`` has ids for them."""
        end = self._position + chunks
        while self._position < end:
            level = self._largest(end)
            while not (ids := known(level, *self._fitting(level, end))):
                level -= 1
            self._push(level, ids)

    def _largest(self, end: int) -> int:
        level = 0
        while level < self.shape.depth and self._position % units(level + 1) == 0:
            if self.shape.span(level + 1, self._position // units(level + 1))[1] > end:
                break
            level += 1
        return level

    def _fitting(self, level: int, end: int) -> tuple[int, int]:
        """The next node of a level, and how many from it on have one parent and end at ``end`` at the latest."""
        index = self._position // units(level)
        stop = self.shape.nodes(level) if end == self.shape.chunks else end // units(level)
        return index, min(stop - index, FANOUT - index % FANOUT)

    def _zeros(self, level: int, index: int, count: int) -> bytes:
        """Ids of zeros for those leading nodes for which that changes nothing, or for chunks, which are counted."""
        if level == 0:
            self._compare(ZERO_ID * count)
            return ZERO_ID * count
        before = self._base_ids(level, index, count)
        zeros = (len(before) - len(before.lstrip(b"\0"))) // ID_SIZE
        beyond = self._base is None or (index + zeros) * units(level) >= self._base.shape.chunks
        return ZERO_ID * (count if beyond else zeros)

    def _push(self, level: int, ids: bytes) -> None:
        """Add nodes of one parent, which is closed, and added to its own, when it is full."""
        last = self._position // units(level) + len(ids) // ID_SIZE - 1
        self._position = self.shape.span(level, last)[1]
        while level < self.shape.depth:
            level += 1
            node = self._nodes[level]
            node += ids
            index = (self._position - 1) // units(level)
            if self._position != self.shape.span(level, index)[1]:
                return
            ids = self._close(level, index, bytes(node))
            node.clear()
        self._root = ids

    def _close(self, level: int, index: int, node: bytes) -> bytes:
        if not node.strip(b"\0"):
            return ZERO_ID
        base = self._base_ids(level, index, 1)
        if self._base is not None and base.strip(b"\0") and self._base.children(level, base, index) == node:
            return base
        return self._store(node)

    def _base_ids(self, level: int, index: int, count: int) -> bytes:
        """The ids of those leading nodes of the base, of one parent, that cover just the same chunks."""
        return b"" if self._base is None else self._base.siblings(self.shape, level, index, count)

    def _compare(self, ids: bytes) -> None:
        """Count the next chunks that differ from the base's; what the base has not differs if it is not zeros."""
        before = self._base_ids(0, self._position, len(ids) // ID_SIZE)
        before += bytes(len(ids) - len(before))
        if ids == before:
            return
        for number in range(len(ids) // ID_SIZE):
            at = number * ID_SIZE
            if ids[at : at + ID_SIZE] != before[at : at + ID_SIZE]:
                self._count(self._position + number)

    def _same_until(self) -> int:
        """Chunks that have the same length in the base."""
        return 0 if self._base is None else self._base.same_until(self.shape)

    def _count(self, index: int) -> None:
        self.changed += self.shape.chunk_length(index)
        self._seen += 1
        offset = index * self.shape.chunk
        if len(self._samples) < SAMPLES:
            self._samples.append(offset)
        elif (slot := random.randrange(self._seen)) < SAMPLES:  # noqa: S311 - a sample, not a secret
            self._samples[slot] = offset
