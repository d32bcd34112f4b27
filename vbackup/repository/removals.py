"""Which key slots were removed on purpose: what the store puts back is shown, and no key pair is sealed to it again.

``removed/MAC`` goes by the slot's own MAC, so a slot is known again under any name. Who reads takes such an object for
what it says as soon as it is there, and seals nothing to that slot. To shut a key out takes more: a proof that only
those make who may read, lest a host that only writes shuts out all others.
"""

from __future__ import annotations

import hmac

from blake3 import blake3
from pydantic import Field

from vbackup.api import Corrupt, NotFound, Transport
from vbackup.repository.documents import Document, get_document, put_document
from vbackup.repository.layout import REMOVED
from vbackup.repository.sealing import Keys, derive


class Removal(Document):
    """That a key slot was removed."""

    proof: str = Field(pattern=r"^[0-9a-f]{64}$", description="made with the seed of the slot's generation")


def record_removal(transport: Transport, keys: Keys, mac: str, generation: int) -> None:
    """Put on record that the slot with that MAC is removed; one of a generation that nobody knows is good for nothing.

    ``keys`` may read.
    """
    proof = _proof(keys, mac, generation)
    if proof is not None:
        put_document(transport, keys, f"{REMOVED}/{mac}", Removal(proof=proof))


def removed_macs(transport: Transport) -> set[str]:
    """Return the MACs of all slots of which there is a record, whether it can be read or not."""
    return {info.key.rpartition("/")[2] for info in transport.list(REMOVED)}


def is_removed(transport: Transport, keys: Keys, mac: str, generation: int) -> bool:
    """Whether somebody who may read has removed the slot, as far as ``keys`` can tell: those that only write cannot."""
    expected = _proof(keys, mac, generation)
    if expected is None:
        return False
    try:
        return hmac.compare_digest(get_document(transport, keys, f"{REMOVED}/{mac}", Removal).proof, expected)
    except (NotFound, Corrupt):
        return False


def _proof(keys: Keys, mac: str, generation: int) -> str | None:
    seed = keys.ring.seeds.get(generation)
    if seed is None or not mac:
        return None
    return blake3(mac.encode(), key=derive(bytes.fromhex(seed), "slot removed")).hexdigest()
