"""Index objects: which chunk is where. Derived data: every pack's footer says the same of that pack.

A sealed index object lists packs: ``name (32) | size (8) | header length (2) |
number of entries (4) | header | entry ...``. Its object
name is the BLAKE3 of its sealed bytes, so that any change to it is seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from blake3 import blake3

from vbackup.api import Corrupt
from vbackup.repository.layout import ID_SIZE, INDEX
from vbackup.repository.packs import ENTRY_SIZE, Pack, pack_entries, unpack_entries
from vbackup.repository.sealing import Keys

KIND = "index"
_HEAD = struct.Struct(f"<{ID_SIZE}sQHI")


def write_index(keys: Keys, packs: Sequence[Pack]) -> tuple[str, bytes]:
    """Return the object key and the sealed bytes of an index of ``packs``."""
    parts: list[bytes] = []
    for pack in packs:
        parts += (
            _HEAD.pack(pack.name, pack.size, len(pack.header), len(pack.entries)),
            pack.header,
            pack_entries(pack.entries),
        )
    sealed = keys.seal(KIND, b"", b"".join(parts))
    return f"{INDEX}/{blake3(sealed).hexdigest()}", sealed


def read_index(keys: Keys, key: str, sealed: bytes) -> Iterator[Pack]:
    """Yield the packs of a stored index object. Raises `Corrupt` naming it."""
    if key != f"{INDEX}/{blake3(sealed).hexdigest()}":
        raise Corrupt(f"index {key} is not what was stored")
    try:
        yield from _packs(memoryview(keys.open(KIND, b"", sealed)))
    except Corrupt as error:
        raise Corrupt(f"index {key} is damaged: {error.message}") from error


def _packs(data: memoryview) -> Iterator[Pack]:
    position = 0
    while position < len(data):
        try:
            name, size, header_length, count = _HEAD.unpack_from(data, position)
        except struct.error:
            raise Corrupt("it ends early") from None
        position += _HEAD.size
        stop = position + header_length + count * ENTRY_SIZE
        if stop > len(data):
            raise Corrupt("it ends early")
        header = bytes(data[position : position + header_length])
        yield Pack(name, size, header, list(unpack_entries(data[position + header_length : stop])))
        position = stop
