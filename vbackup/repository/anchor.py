"""What this host remembers of a repository, so that nobody can take it back in time, or change it, unnoticed.

A store can hide what it holds, or go back to an older state as a whole; who has a key that only writes can make up
key slots and records. No seal shows that; only memory does. So each host keeps, outside of the cache, which repository
it knew under a target's name, which key pair new data was sealed to, and which points it has seen to count. A point
that is gone without a sealed record of its deletion is reported, and so is one that is said not to count any more. A
host that opens a repository for the first time takes it as it is.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from vbackup.api import Corrupt
from vbackup.repository import hybrid
from vbackup.repository.sealing import Keys

log = logging.getLogger(__name__)

_MAGIC = b"VBSEEN1\n"
_PAIR = struct.Struct("<I32s")
_IDENTITY = len(_MAGIC) + 32
_HEAD = _IDENTITY + _PAIR.size


class Deleted(NamedTuple):
    """What is on record of deletions."""

    points: set[str]
    damaged: list[str]
    """Keys of records that cannot be read."""


class Anchor:
    """One repository's memory, in a file.

    ``magic (8) | repository id (16) | family (16) | generation (4) | BLAKE3 of its public key (32) | point id ...``
    """

    def __init__(self, path: Path, keys: Keys, deleted: Callable[[], Deleted]) -> None:
        """``deleted`` returns what is on record of deletions; it is asked when points are gone."""
        self._path = path
        self._keys = keys
        self._deleted = deleted
        pair = _PAIR.pack(keys.ring.generation, blake3(bytes.fromhex(keys.ring.public)).digest())
        self._identity = keys.repository + keys.family
        self._head = _MAGIC + self._identity + pair

    def check(self) -> None:
        """Raise `Corrupt` when this is not the repository, or not its key pair, that was here before."""
        data = self._read()
        if data[len(_MAGIC) : _IDENTITY] not in (b"", self._identity):
            raise Corrupt(
                "the store shows another repository than it did before",
                hint=f"if it was replaced on purpose, remove {self._path}",
            )
        if data and data[:_HEAD] != self._head and not self._is_rotated(*_PAIR.unpack_from(data, _IDENTITY)):
            raise Corrupt(
                "new data would be sealed to another key pair than before: the key slot that was opened may be made up",
                hint=f"if the data key was rotated on purpose, remove {self._path} on this host",
            )
        if data[:_HEAD] != self._head:
            self._update((), ())

    def _is_rotated(self, generation: int, digest: bytes) -> bool:
        """Whether the ring has grown out of the one that was here before: who made it had all earlier seeds."""
        seed = self._keys.ring.seeds.get(generation)
        return seed is not None and blake3(hybrid.public_key(bytes.fromhex(seed))).digest() == digest

    def seen(self) -> set[str]:
        """Return the points that were seen here to count, and that were not deleted since."""
        return set(_ids(self._read()))

    def compare(self, there: Collection[str], counting: Collection[str]) -> list[tuple[str, str]]:
        """Remember the points that count; return (id, reason) for those that did, and are not there."""
        seen = self.seen()
        gone = seen - set(there)
        recorded = self._deleted() if gone else Deleted(set(), [])
        gone_well = gone & recorded.points
        if gone_well or set(counting) - seen:
            self._update(counting, gone_well)
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
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise Corrupt(
                f"{self._path}, which says what was seen here before, cannot be read: {error.strerror}"
            ) from error
        if not data.startswith(_MAGIC) or len(data) < _HEAD:
            raise Corrupt(
                f"{self._path}, which says what was seen here before, is damaged",
                hint="remove it, and this host takes the repository as it is",
            )
        return data

    def _update(self, add: Iterable[str], remove: Collection[str]) -> None:
        """Several processes may do so at once: what another has seen stays."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                points = (self.seen() | set(add)) - set(remove)
                self._write(self._head + b"".join(bytes.fromhex(point) for point in sorted(points)))
        except OSError as error:
            log.warning("what was seen of the repository is not remembered: %s", error)

    def _write(self, data: bytes) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _ids(data: bytes) -> Iterable[str]:
    return (data[at : at + 16].hex() for at in range(_HEAD, len(data) - 15, 16))
