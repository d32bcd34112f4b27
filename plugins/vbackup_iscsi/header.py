"""The first MiB of a LUN: ours, before the file system.

::

    0     label   written once, when the LUN was formatted
    4096  owner   who has it attached: see `vbackup_iscsi.lease`
    1 MiB the file system

Each is a block of 4 KiB: the magic line, a JSON object, zeros, and in the last 32 bytes the BLAKE2b of what is before.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

from pydantic import TypeAdapter

BLOCK = 4096
FILE_SYSTEM = 1 << 20
"""Where the file system begins, in bytes."""
_MAGIC = b"vbackup iSCSI 1\n"
_DIGEST = 32
_LABEL, _OWNER = 0, BLOCK
_LONGEST_LEASE = 3600
_ENDS = 4 << 20
"""How much of the beginning and of the end of a LUN must be zero for it to be blank: signatures are at either."""


@dataclass(frozen=True, slots=True)
class Label:
    """That the LUN is formatted, and what it was then."""

    size: int
    """Of the LUN, in bytes."""
    id: str
    """Of the store: random, so that no other LUN is taken for this one."""
    whole: bool = True
    """False while it is being formatted."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has the LUN attached."""

    host: str
    """For people."""
    seat: str
    """One boot of one host (or container): attachments of one seat are known to each other by their locks."""
    nonce: str
    """One attachment."""
    lease: float
    """Seconds after which it gives up by itself when it cannot count."""
    counter: int = 0
    """Counted up while it lives. 0 while it is not yet sure to have won."""
    released: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` for what cannot be: records come from the target."""
        if not 0 < self.lease <= _LONGEST_LEASE:
            raise ValueError("a lease of that length")

    def counted(self) -> Self:
        """Return the next record of the same attachment."""
        return replace(self, counter=self.counter + 1)


Record = TypeVar("Record", Label, Owner)


class Device:
    """The bytes of an attached LUN, past all caches of this host. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        self.size = os.lseek(self._descriptor, 0, os.SEEK_END)
        """In bytes."""

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def label(self) -> Label | None:
        """Return the label, or None where there is no valid one."""
        return _decoded(Label, self.read(_LABEL, BLOCK))

    def write_label(self, label: Label) -> None:
        """Write it, durably."""
        self._write(_LABEL, _encoded(label))
        os.fsync(self._descriptor)

    def owner(self) -> Owner | None:
        """Return the owner's record, or None where there is no valid one."""
        return _decoded(Owner, self.read(_OWNER, BLOCK))

    def owner_block(self) -> bytes:
        """Return the block of the owner's record, whatever is in it."""
        return self.read(_OWNER, BLOCK)

    def write_owner(self, owner: Owner, *, durably: bool = False) -> None:
        """Write the record of the owner."""
        self._write(_OWNER, _encoded(owner))
        if durably:
            os.fsync(self._descriptor)

    def is_blank(self) -> bool:
        """Whether there is nothing, or what a format of ours left behind that did not come to its end."""
        label = self.label()
        if label is not None:
            return not label.whole
        begin = bytearray(self.read(0, _ENDS))  # far enough to see what a file system of ours begins with
        if self.owner() is not None:
            begin[_OWNER : _OWNER + BLOCK] = bytes(BLOCK)
        return not any(begin) and not any(self.read(self._ends()[1], _ENDS))

    def wipe(self) -> None:
        """Zero both ends, where signatures of other file systems and partition tables are, but for the owner."""
        _, end = self._ends()
        after = _OWNER + BLOCK
        for start, stop in ((0, _OWNER), (after, _ENDS), (max(end, after), self.size // BLOCK * BLOCK)):
            self._write(start, bytes(stop - start))

    def _ends(self) -> tuple[int, int]:
        return 0, max(0, self.size - _ENDS) // BLOCK * BLOCK

    def read(self, offset: int, length: int) -> bytes:
        """Read; less where the LUN ends."""
        with mmap.mmap(-1, length) as buffer:  # aligned, as O_DIRECT wants it
            count = os.preadv(self._descriptor, [buffer], offset)
            return buffer[:count]

    def _write(self, offset: int, data: bytes) -> None:
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            if os.pwritev(self._descriptor, [buffer], offset) != len(data):
                raise OSError(5, "short write")


def _encoded(record: Label | Owner) -> bytes:
    kind = type(record).__name__
    body = (_MAGIC + json.dumps({"kind": kind} | asdict(record)).encode()).ljust(BLOCK - _DIGEST, b"\0")
    return body + hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _decoded(kind: type[Record], block: bytes) -> Record | None:
    body = block[:-_DIGEST]
    if not block.startswith(_MAGIC) or hashlib.blake2b(body, digest_size=_DIGEST).digest() != block[-_DIGEST:]:
        return None
    try:
        fields = json.loads(body[len(_MAGIC) :].rstrip(b"\0"))
        if not isinstance(fields, dict) or fields.pop("kind", None) != kind.__name__:
            return None
        return TypeAdapter(kind).validate_json(json.dumps(fields), strict=True)
    except ValueError:  # of json and of pydantic
        return None
