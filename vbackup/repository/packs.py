"""Packs: one stored object that holds many blobs and a sealed list of them.

::

    magic (8) | header length (4) | header | blob ... | sealed footer | footer length (4) | end magic (8)

The header is public: a list of ``length (2) | origin``, first the session that wrote the pack, then others whose
blobs are in it. It is authenticated by the footer. The object's name is the BLAKE3 of all its bytes. Integers are
little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from blake3 import blake3

from vbackup.api import Buffer, Corrupt, Transport
from vbackup.repository.layout import ID_SIZE, PACK_ENTRIES, PACK_ORIGINS, PACK_SIZE, pack_key
from vbackup.repository.sealing import Keys

MAGIC = b"VBPACK1\n"
END = b"VBPKEND1"
_HEAD = struct.Struct("<8sI")
_TAIL = struct.Struct("<I8s")
_ENTRY = struct.Struct(f"<{ID_SIZE}sBHIII")
FOOTER = "pack footer"
MAX_HEADER = 4 << 20
_LENGTH = struct.Struct("<H")
_TAIL_GUESS = 64 << 10
_HEAD_GUESS = 16 << 10
_HEADER_ROOM = 1 << 20
"""Kept free before the blobs: how long the header gets is known only when all of them are there."""


class Entry(NamedTuple):
    """A chunk in a pack: which of the pack's origins it has, where its blob is, and the size of its plain bytes."""

    id: bytes
    kind: int
    origin: int
    offset: int
    length: int
    size: int


class Pack(NamedTuple):
    """A pack as the index knows it."""

    name: bytes
    size: int
    origins: tuple[bytes, ...]
    """Encoded, see `Origin`; the first is the session that wrote the pack."""
    entries: list[Entry]

    @property
    def writer(self) -> bytes:
        """The id of the session that wrote the pack."""
        return self.origins[0][:16] if self.origins else b""


def pack_entries(entries: list[Entry]) -> bytes:
    """Entries as bytes, 47 each."""
    return b"".join(_ENTRY.pack(*entry) for entry in entries)


def unpack_entries(data: Buffer) -> Iterator[Entry]:
    """Undo `pack_entries`. Raises `Corrupt`."""
    if len(data) % _ENTRY.size:
        raise Corrupt("a list of chunks has a broken length")
    return map(Entry._make, _ENTRY.iter_unpack(data))


ENTRY_SIZE = _ENTRY.size


class PackBuilder:
    """A pack being filled, in memory that may have held another one before. Not thread-safe: its owner locks."""

    def __init__(self, keys: Keys, writer: bytes, memory: bytearray | None = None) -> None:
        """``writer`` is the encoded origin of the session that fills the pack.

        ``memory`` is overwritten, and grows as needed. It is free again when nobody needs the bytes of `finish`.
        """
        self._keys = keys
        self.memory = bytearray() if memory is None else memory
        if not self.memory:
            self.memory += bytes(_HEADER_ROOM)
        self._origins: dict[bytes, int] = {writer: 0}
        self._header = len(writer)
        self.size = 0
        """Bytes of the blobs."""
        self.entries: list[Entry] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time for the next one: by its bytes or, where chunks shrink to nothing, by their number."""
        return (
            self.size >= PACK_SIZE
            or len(self.entries) >= PACK_ENTRIES
            or len(self._origins) >= PACK_ORIGINS
            or self._header >= _HEADER_ROOM // 2
        )

    def add(self, origin: bytes, chunk_id: bytes, kind: int, blob: Buffer, size: int) -> None:
        """Append a blob of the session that ``origin`` describes."""
        number = self._origins.get(origin)
        if number is None:
            number = self._origins[origin] = len(self._origins)
            self._header += len(origin)
        length = len(blob)
        self.entries.append(Entry(chunk_id, kind, number, self.size, length, size))
        at = _HEADER_ROOM + self.size
        self.memory[at : at + length] = blob
        self.size += length

    def finish(self) -> tuple[Pack, memoryview]:
        """Seal the footer; return the pack and all its bytes, a part of `memory` that is to be released."""
        header = encode_origins(self._origins)
        head = _HEAD.pack(MAGIC, len(header)) + header
        entries = [entry._replace(offset=len(head) + entry.offset) for entry in self.entries]
        footer = self._keys.seal(FOOTER, header, pack_entries(entries))
        tail = footer + _TAIL.pack(len(footer), END)
        first, last = _HEADER_ROOM - len(head), _HEADER_ROOM + self.size
        self.memory[first:_HEADER_ROOM] = head
        self.memory[last : last + len(tail)] = tail
        data = memoryview(self.memory)[first : last + len(tail)]
        return Pack(blake3(data).digest(), len(data), tuple(self._origins), entries), data


def is_free(memory: bytearray) -> bool:
    """Whether nobody has a view of ``memory``: a transport may go on sending what it was given after it failed."""
    try:
        memory.append(0)  # what has views cannot change its size
    except BufferError:
        return False
    memory.pop()
    return True


def encode_origins(origins: Iterable[bytes]) -> bytes:
    """Return a pack's header."""
    return b"".join(_LENGTH.pack(len(origin)) + origin for origin in origins)


def decode_origins(header: bytes) -> tuple[bytes, ...]:
    """Undo `encode_origins`. Raises `Corrupt`."""
    origins: list[bytes] = []
    at = 0
    while at < len(header):
        if at + _LENGTH.size > len(header):
            raise Corrupt("the header ends early")
        (length,) = _LENGTH.unpack_from(header, at)
        at += _LENGTH.size
        if at + length > len(header):
            raise Corrupt("the header ends early")
        origins.append(header[at : at + length])
        at += length
    return tuple(origins)


def read_pack(transport: Transport, keys: Keys, name: bytes) -> Pack:
    """Read the header and footer of a stored pack and check the one with the other.

    Raises: `Corrupt` naming the pack; `NotFound`, `Unavailable`.
    """
    key = pack_key(name)
    return _read(lambda offset, length: transport.get(key, offset, length), transport.size(key), keys, name)


def open_pack(data: bytes, keys: Keys, name: bytes) -> Pack:
    """Like `read_pack`, of a pack's bytes."""

    def part(offset: int, length: int | None) -> bytes:
        return data[offset:] if length is None else data[offset : offset + length]

    return _read(part, len(data), keys, name)


def _read(get: Callable[[int, int | None], bytes], total: int, keys: Keys, name: bytes) -> Pack:
    key = pack_key(name)
    tail = get(max(0, total - _TAIL_GUESS), None)
    try:
        length, end = _TAIL.unpack(tail[-_TAIL.size :])
    except struct.error:
        raise Corrupt(f"pack {key} is truncated") from None
    if end != END or length + _TAIL.size > total:
        raise Corrupt(f"pack {key} is truncated or is no pack")
    if length + _TAIL.size > len(tail):
        tail = get(total - length - _TAIL.size, None)
    footer = memoryview(tail)[len(tail) - length - _TAIL.size : len(tail) - _TAIL.size]
    header = _read_header(get, key)
    try:
        entries = list(unpack_entries(keys.open(FOOTER, header, footer)))
        origins = decode_origins(header)
    except Corrupt as error:
        raise Corrupt(f"pack {key} is damaged: {error.message}") from error
    return Pack(name, total, origins, entries)


def _read_header(get: Callable[[int, int | None], bytes], key: str) -> bytes:
    head = get(0, _HEAD_GUESS)
    if len(head) < _HEAD.size:
        raise Corrupt(f"pack {key} is truncated")
    magic, length = _HEAD.unpack_from(head)
    if magic != MAGIC or length > MAX_HEADER:
        raise Corrupt(f"pack {key} has a damaged header")
    if length > len(head) - _HEAD.size:
        head = get(0, _HEAD.size + length)
    if length > len(head) - _HEAD.size:
        raise Corrupt(f"pack {key} is truncated")
    return head[_HEAD.size : _HEAD.size + length]
