"""What this host remembers of a repository, so that a store cannot take it back in time unnoticed.

A store can hide what it holds, or go back to an older state as a whole. No seal shows that; only memory does. So each
host keeps, outside of the cache, which repository it knew under a target's name and which points it has seen. A point
that is gone without a sealed record of its deletion is reported. A host that sees a repository for the first time
takes it as it is.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from vbackup.api import Corrupt

log = logging.getLogger(__name__)

_MAGIC = b"VBSEEN1\n"
_HEAD = len(_MAGIC) + 32


class Deleted(NamedTuple):
    """What is on record of deletions."""

    points: set[str]
    damaged: list[str]
    """Keys of records that cannot be read."""


class Anchor:
    """One repository's memory, in a file: ``magic (8) | repository id (16) | family (16) | point id (16) ...``."""

    def __init__(self, path: Path, repository: bytes, family: bytes, deleted: Callable[[], Deleted]) -> None:
        """``deleted`` returns what is on record of deletions; it is asked when points are gone."""
        self._path = path
        self._identity = repository + family
        self._deleted = deleted

    def check(self) -> None:
        """Raise `Corrupt` when this is not the repository that was here before."""
        data = self._read()
        if data and data[len(_MAGIC) : _HEAD] != self._identity:
            raise Corrupt(
                "the store shows another repository than it did before",
                hint=f"if it was replaced on purpose, remove {self._path}",
            )

    def compare(self, there: Collection[str]) -> list[tuple[str, str]]:
        """Remember the points that are there; return (id, reason) for those that were and should be."""
        seen = set(_ids(self._read()))
        gone = seen - set(there)
        recorded = self._deleted() if gone else Deleted(set(), [])
        gone_well = gone & recorded.points
        if gone_well or set(there) - seen:
            self._update(there, gone_well)
        reason = "it was seen here before and is gone, without a record of its deletion: the store lost or hides it"
        if recorded.damaged:
            reason += f"; but such records are damaged: {', '.join(recorded.damaged)}"
        return [(point, reason) for point in sorted(gone - gone_well)]

    def remember(self, point: str) -> None:
        """Remember a point that was made here."""
        self._update([point], ())

    def _read(self) -> bytes:
        try:
            data = self._path.read_bytes()
        except OSError:
            return b""
        return data if data.startswith(_MAGIC) and len(data) >= _HEAD else b""

    def _update(self, add: Iterable[str], remove: Collection[str]) -> None:
        """Several processes may do so at once: what another has seen stays."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                points = (set(_ids(self._read())) | set(add)) - set(remove)
                fresh = self._path.with_suffix(".new")
                fresh.write_bytes(_MAGIC + self._identity + b"".join(bytes.fromhex(point) for point in sorted(points)))
                fresh.replace(self._path)
        except OSError as error:
            log.debug("what was seen of the repository is not remembered: %s", error)


def _ids(data: bytes) -> Iterable[str]:
    return (data[at : at + 16].hex() for at in range(_HEAD, len(data) - 15, 16))
