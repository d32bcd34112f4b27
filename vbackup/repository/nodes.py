"""Nodes of a disk map, read ahead for those who go through it in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence

from vbackup.repository.layout import ID_SIZE, ZERO_ID

_AT_ONCE = 32
_KEPT = 2 * _AT_ONCE
"""Nodes of one level: who looks ahead and who follows ask for what is not far apart."""


class NodesAhead:
    """Loads nodes for a `DiskMap`: with one that has to be read its next siblings, all at the same time.

    ``load_many`` returns nodes by id, some may be missing, but of the first one it raises why it is. Siblings in
    ``skip`` are not read. ``careful`` is for who may leave most of them out: they are read alone, and when that goes
    on in order, by 2, 4, 8 and so on. Used by one thread.
    """

    def __init__(
        self,
        depth: int,
        load_many: Callable[[Sequence[bytes]], Mapping[bytes, bytes]],
        skip: Container[bytes] = (),
        *,
        careful: bool = False,
    ) -> None:
        self._depth = depth
        self._load_many = load_many
        self._skip = skip
        self._careful = careful
        self._families: dict[int, bytes] = {}  # by level: the ids, joined, below the parent that was loaded last
        self._ready: defaultdict[int, dict[bytes, bytes]] = defaultdict(dict)  # by level, the oldest first
        self._next: dict[int, tuple[bytes, int]] = {}
        """By level: who follows what was read together, none if nobody does, and how many that were."""

    def load(self, node_id: bytes) -> bytes:
        """Return a node's bytes. Raises what ``load_many`` raises."""
        level, at = self._find(node_id)
        ready = self._ready[level]
        if node_id not in ready:
            ready.update(self._read(level, at, node_id))
            for oldest in list(ready)[:-_KEPT]:
                del ready[oldest]
        node = ready[node_id]
        if level > 1:
            self._families[level - 1] = node
        return node

    def _read(self, level: int, at: int, node_id: bytes) -> Mapping[bytes, bytes]:
        following = self._siblings(level, at)
        expected, before = self._next.get(level, (b"", 0))
        goes_on = node_id == expected or not expected
        count = min(max(1, 2 * before if goes_on else 1), _AT_ONCE) if self._careful else _AT_ONCE
        self._next[level] = (following[count - 1] if len(following) >= count else b""), count
        ahead = (sibling for sibling in following[: count - 1] if sibling not in self._ready[level])
        return self._load_many([node_id, *ahead])

    def _find(self, node_id: bytes) -> tuple[int, int]:
        """Return the node's level, and where it is in its family; a node without one counts as a root."""
        for level, family in self._families.items():
            at = family.find(node_id)
            if at >= 0 and at % ID_SIZE == 0:
                return level, at
        return self._depth, 0

    def _siblings(self, level: int, at: int) -> list[bytes]:
        family = self._families.get(level, b"")
        following = (family[i : i + ID_SIZE] for i in range(at + ID_SIZE, len(family), ID_SIZE))
        wanted = dict.fromkeys(i for i in following if i != ZERO_ID and i not in self._skip)
        return list(wanted)
