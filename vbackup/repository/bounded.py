"""Reading objects that nothing is known of yet."""

from __future__ import annotations

from vbackup.api import Corrupt, Transport


def bounded(transport: Transport, key: str, most: int) -> bytes:
    """Get an object that nothing is known of yet, of at most ``most`` bytes. Raises `Corrupt` for a larger one."""
    data = transport.get(key, 0, most + 1)
    if len(data) > most:
        raise Corrupt(f"object {key} is larger than any of its kind can be")
    return data
