"""Nodes of a disk map, read ahead for those who go through all of it in order."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from vbackup.repository.layout import ID_SIZE, ZERO_ID

_AT_ONCE = 32


class NodesAhead:
    """Loads nodes for a `DiskMap`: with one that has to be read its next siblings, all at the same time.

    ``load_many`` returns nodes by id, some may be missing, but of the first one it raises why it is. Siblings in
    ``skip`` are not read. Used by one thread.
    """

    def __init__(
        self, depth: int, load_many: Callable[[Sequence[bytes]], Mapping[bytes, bytes]], skip: Container[bytes] = ()
    ) -> None:
        self._depth = depth
        self._load_many = load_many
        self._skip = skip
        self._families: dict[int, bytes] = {}  # by level: the ids, joined, below the parent that was loaded last
        self._ready: Mapping[bytes, bytes] = {}

    def load(self, node_id: bytes) -> bytes:
        """Return a node's bytes. Raises what ``load_many`` raises."""
        level, at = self._find(node_id)
        if node_id not in self._ready:
            self._ready = self._load_many([node_id, *self._siblings(level, at)])
        node = self._ready[node_id]
        if level > 1:
            self._families[level - 1] = node
        return node

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
        return list(wanted)[: _AT_ONCE - 1]
