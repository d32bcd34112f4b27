"""Index objects: which chunk is where. Derived data: every pack's footer says the same of that pack.

A sealed index object lists origins, each once, and packs::

    length of the origins (4) | (length (2) | origin) ... |
    (pack name (32) | size (8) | number of origins (2) | number of entries (4) | origin number (4) ... | entry ...) ...

Its object name is the BLAKE3 of its sealed bytes, so that any change to it is seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from blake3 import blake3

from vbackup.api import Corrupt
from vbackup.repository.layout import ID_SIZE, INDEX
from vbackup.repository.packs import ENTRY_SIZE, Pack, decode_origins, encode_origins, pack_entries, unpack_entries
from vbackup.repository.sealing import Keys

KIND = "index"
_ORIGINS = struct.Struct("<I")
_PACK = struct.Struct(f"<{ID_SIZE}sQHI")


def write_index(keys: Keys, packs: Sequence[Pack]) -> tuple[str, bytes]:
    """Return the object key and the sealed bytes of an index of ``packs``."""
    origins: dict[bytes, int] = {}
    parts: list[bytes] = []
    for pack in packs:
        numbers = [origins.setdefault(origin, len(origins)) for origin in pack.origins]
        parts += (
            _PACK.pack(pack.name, pack.size, len(numbers), len(pack.entries)),
            struct.pack(f"<{len(numbers)}I", *numbers),
            pack_entries(pack.entries),
        )
    listed = encode_origins(origins)
    sealed = keys.seal(KIND, b"", b"".join((_ORIGINS.pack(len(listed)), listed, *parts)))
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
    (length,) = _unpack(_ORIGINS, data, 0)
    origins = decode_origins(bytes(data[_ORIGINS.size : _ORIGINS.size + length]))
    position = _ORIGINS.size + length
    while position < len(data):
        try:
            name, size, own, count = _PACK.unpack_from(data, position)
        except struct.error:
            raise Corrupt("it ends early") from None
        position += _PACK.size
        numbers = _unpack(struct.Struct(f"<{own}I"), data, position)
        position += 4 * own
        stop = position + count * ENTRY_SIZE
        if stop > len(data) or any(number >= len(origins) for number in numbers):
            raise Corrupt("it ends early")
        entries = list(unpack_entries(data[position:stop]))
        yield Pack(name, size, tuple(origins[number] for number in numbers), entries)
        position = stop


def _unpack(form: struct.Struct, data: memoryview, position: int) -> tuple[int, ...]:
    try:
        return form.unpack_from(data, position)
    except struct.error:
        raise Corrupt("it ends early") from None
