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
    """A pack being filled. Not thread-safe: its owner locks."""

    def __init__(self, keys: Keys, writer: bytes) -> None:
        """``writer`` is the encoded origin of the session that fills the pack."""
        self._keys = keys
        self._blobs: list[bytes] = []
        self._origins: dict[bytes, int] = {writer: 0}
        self.size = 0
        """Bytes of the blobs."""
        self.entries: list[Entry] = []

    @property
    def is_full(self) -> bool:
        """Whether it is time for the next one: by its bytes or, where chunks shrink to nothing, by their number."""
        return self.size >= PACK_SIZE or len(self.entries) >= PACK_ENTRIES or len(self._origins) >= PACK_ORIGINS

    def add(self, origin: bytes, chunk_id: bytes, kind: int, blob: bytes, size: int) -> None:
        """Append a blob of the session that ``origin`` describes."""
        number = self._origins.setdefault(origin, len(self._origins))
        self.entries.append(Entry(chunk_id, kind, number, self.size, len(blob), size))
        self._blobs.append(blob)
        self.size += len(blob)

    def finish(self) -> tuple[Pack, bytes]:
        """Seal the footer; return the pack and all its bytes."""
        header = encode_origins(self._origins)
        start = _HEAD.size + len(header)
        entries = [entry._replace(offset=start + entry.offset) for entry in self.entries]
        footer = self._keys.seal(FOOTER, header, pack_entries(entries))
        data = b"".join((_HEAD.pack(MAGIC, len(header)), header, *self._blobs, footer, _TAIL.pack(len(footer), END)))
        self._blobs.clear()
        return Pack(blake3(data).digest(), len(data), tuple(self._origins), entries), data


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
