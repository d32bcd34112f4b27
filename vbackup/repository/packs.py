"""Packs: one stored object that holds many blobs and a sealed list of them.

::

    magic (8) | header length (4) | header (JSON) | blob ... | sealed footer | footer length (4) | end magic (8)

The header is public (codec names, session salt) and authenticated by the footer. The object's name is the BLAKE3 of
all its bytes. Integers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vbackup.api import Buffer, Corrupt, Transport
from vbackup.repository.chunks import MAX_CODECS, Chain
from vbackup.repository.layout import ID_SIZE, PACK_ENTRIES, PACK_SIZE, pack_key
from vbackup.repository.sealing import ChunkKind, Keys

MAGIC = b"VBPACK1\n"
END = b"VBPKEND1"
_HEAD = struct.Struct("<8sI")
_TAIL = struct.Struct("<I8s")
_ENTRY = struct.Struct(f"<{ID_SIZE}sBIII")
FOOTER = "pack footer"
_TAIL_GUESS = 64 << 10


class Header(BaseModel):
    """What is needed to decode a pack's blobs, beside the master secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    codecs: tuple[str, ...] = Field(max_length=MAX_CODECS)
    salt: str = Field(pattern=r"^[0-9a-f]{64}$")


class Entry(NamedTuple):
    """A chunk in a pack: where its blob is, and the size of its plain bytes."""

    id: bytes
    kind: int
    offset: int
    length: int
    size: int


class Pack(NamedTuple):
    """A pack as the index knows it."""

    name: bytes
    size: int
    header: bytes
    entries: list[Entry]


def pack_entries(entries: list[Entry]) -> bytes:
    """Entries as bytes, 45 each."""
    return b"".join(_ENTRY.pack(*entry) for entry in entries)


def unpack_entries(data: Buffer) -> Iterator[Entry]:
    """Undo `pack_entries`. Raises `Corrupt`."""
    if len(data) % _ENTRY.size:
        raise Corrupt("a list of chunks has a broken length")
    return map(Entry._make, _ENTRY.iter_unpack(data))


ENTRY_SIZE = _ENTRY.size


class PackBuilder:
    """A pack being filled. Not thread-safe: its owner locks."""

    def __init__(self, keys: Keys, chain: Chain) -> None:
        self._keys = keys
        self.header = Header(codecs=tuple(chain.names), salt=chain.salt.hex()).model_dump_json().encode()
        self._data = bytearray(_HEAD.pack(MAGIC, len(self.header)) + self.header)
        self.entries: list[Entry] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time for the next one: by its bytes or, where chunks shrink to nothing, by their number."""
        return len(self._data) >= PACK_SIZE or len(self.entries) >= PACK_ENTRIES

    def add(self, chunk_id: bytes, kind: ChunkKind, blob: bytes, size: int) -> None:
        """Append a blob."""
        self.entries.append(Entry(chunk_id, kind, len(self._data), len(blob), size))
        self._data += blob

    def finish(self) -> tuple[Pack, bytearray]:
        """Seal the footer; return the pack and all its bytes."""
        footer = self._keys.seal(FOOTER, self.header, pack_entries(self.entries))
        self._data += footer
        self._data += _TAIL.pack(len(footer), END)
        return Pack(blake3(self._data).digest(), len(self._data), self.header, self.entries), self._data


def read_pack(transport: Transport, keys: Keys, name: bytes) -> Pack:
    """Read the header and footer of a stored pack and check the one with the other.

    Raises: `Corrupt` naming the pack; `NotFound`, `Unavailable`.
    """
    key = pack_key(name)
    total = transport.size(key)
    tail = transport.get(key, max(0, total - _TAIL_GUESS))
    try:
        length, end = _TAIL.unpack(tail[-_TAIL.size :])
    except struct.error:
        raise Corrupt(f"pack {key} is truncated") from None
    if end != END or length + _TAIL.size > total:
        raise Corrupt(f"pack {key} is truncated or is no pack")
    if length + _TAIL.size > len(tail):
        tail = transport.get(key, total - length - _TAIL.size)
    footer = memoryview(tail)[len(tail) - length - _TAIL.size : len(tail) - _TAIL.size]
    header = _read_header(transport, key)
    try:
        entries = list(unpack_entries(keys.open(FOOTER, header, footer)))
    except Corrupt as error:
        raise Corrupt(f"pack {key} is damaged: {error.message}") from error
    return Pack(name, total, header, entries)


def parse_header(header: bytes, key: str) -> Header:
    """Parse a pack's header. Raises `Corrupt` naming the pack."""
    try:
        return Header.model_validate_json(header)
    except ValidationError:
        raise Corrupt(f"pack {key} has a damaged header") from None


def _read_header(transport: Transport, key: str) -> bytes:
    head = transport.get(key, 0, 4096)
    if len(head) < _HEAD.size:
        raise Corrupt(f"pack {key} is truncated")
    magic, length = _HEAD.unpack_from(head)
    if magic != MAGIC or length > len(head) - _HEAD.size:
        raise Corrupt(f"pack {key} has a damaged header")
    return head[_HEAD.size : _HEAD.size + length]
