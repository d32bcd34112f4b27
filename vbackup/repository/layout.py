"""Names of objects, sizes and magics; FORMAT.md is their documentation."""

from __future__ import annotations

FORMAT = 1
REPOSITORY = "repository"
KEYS = "keys"
PACKS = "packs"
INDEX = "index"
POINTS = "points"
SESSIONS = "sessions"
ENDED = "ended"
CONDEMNED = "condemned"
PROTECTED = "protected"
DELETIONS = "deletions"
REMOVED = "removed"

DEFAULT_CHUNK_SIZE = 64 << 10
PACK_SIZE = 32 << 20
PACK_ENTRIES = 1 << 14
PACK_ORIGINS = 256
"""Sessions in one pack at the most: their descriptions, of 1.2 KB each, stay below a hundredth of it."""
INDEX_ENTRIES = 1 << 16
"""Chunks in one index object at the most: bounds what a session holds in memory before they are on disk."""

ID_SIZE = 32
ZERO_ID = bytes(ID_SIZE)
"""Stands for zeros in a disk map, a chunk's or a whole subtree's; no stored object has it."""

FANOUT = 256
"""Children of a disk map's node. A small node keeps a scattered change on a huge disk cheap: with 64 KiB chunks a
leaf covers 16 MiB in 8 KiB, so 1,600 changes strewn over 1 TiB rewrite 16 MB of map."""


def pack_key(name: bytes) -> str:
    """Return the object key of a pack, spread over 256 prefixes to keep directories small."""
    text = name.hex()
    return f"{PACKS}/{text[:2]}/{text}"


def pack_name(key: str) -> bytes | None:
    """Return the name in a pack's object key, or None when it is not one."""
    parts = key.split("/")
    name = _hex(parts[-1], 32)
    return name if name is not None and key == pack_key(name) else None


def _hex(text: str, size: int) -> bytes | None:
    if len(text) != 2 * size or text != text.lower():
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None
