"""Damaged packs made known to all: ``damaged/NAME`` says that pack NAME does not hold what it was stored with.

Nobody builds on such a pack any more, and what it holds counts elsewhere first: so what a repair has moved out of it,
or found again, is what stays, and the pack itself becomes garbage that a prune collects. A name says all there is to
say; a store that makes one up gains nothing that deleting the pack would not give it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from vbackup.api import Transport

DAMAGED = "damaged"
_KEY = re.compile(rf"{DAMAGED}/([0-9a-f]{{64}})")


def list_damaged(transport: Transport) -> set[bytes]:
    """Return the names of the packs that are known to be damaged."""
    found = (_KEY.fullmatch(info.key) for info in transport.list(DAMAGED))
    return {bytes.fromhex(match[1]) for match in found if match}


def publish(transport: Transport, packs: Iterable[bytes]) -> None:
    """Let everybody know that packs are damaged."""
    for name in sorted(packs):
        transport.put(f"{DAMAGED}/{name.hex()}", b"damaged")


def withdraw(transport: Transport, packs: Iterable[bytes]) -> None:
    """Take that back, of packs that are gone or read well again."""
    for name in sorted(packs):
        transport.delete(f"{DAMAGED}/{name.hex()}")
