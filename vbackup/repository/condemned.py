"""Condemnations: packs that a prune will delete. Whoever has seen one builds on none of them any more; see PRUNE.md."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Annotated

from pydantic import StringConstraints

from vbackup.api import NotFound, Transport
from vbackup.repository.documents import Document, get_document, put_document
from vbackup.repository.layout import CONDEMNED
from vbackup.repository.sealing import Keys

_KEY = re.compile(r"condemned/([0-9a-f]{32})")


PackName = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Condemnation(Document):
    """Packs (names, hex) that will go."""

    packs: tuple[PackName, ...]


class Condemnations:
    """Reads and makes them; what was read is kept, for they never change."""

    def __init__(self, transport: Transport, keys: Keys) -> None:
        self._transport = transport
        self._keys = keys
        self._known: dict[str, Condemnation] = {}

    def load(self) -> Mapping[str, Condemnation]:
        """Return those that are there now, by id."""
        there: dict[str, Condemnation] = {}
        for info in self._transport.list(CONDEMNED):
            match = _KEY.fullmatch(info.key)
            if match is None:
                continue
            try:
                there[match[1]] = self._known.get(match[1]) or get_document(
                    self._transport, self._keys, info.key, Condemnation
                )
            except NotFound:
                continue  # carried out since it was listed: its packs are gone
        self._known = there
        return there

    def put(self, packs: Collection[bytes]) -> str:
        """Condemn packs; return the id."""
        condemned = os.urandom(16).hex()
        document = Condemnation(packs=tuple(sorted(pack.hex() for pack in packs)))
        put_document(self._transport, self._keys, f"{CONDEMNED}/{condemned}", document)
        return condemned

    def remove(self, condemned: str) -> None:
        """Forget one whose packs are all gone."""
        self._transport.delete(f"{CONDEMNED}/{condemned}")


def packs_of(condemned: Mapping[str, Condemnation]) -> set[bytes]:
    """Return the names of all condemned packs."""
    return {bytes.fromhex(pack) for each in condemned.values() for pack in each.packs}
