"""Small sealed JSON objects: what sessions and prunes tell each other, protections, records of deletions."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vbackup.api import Corrupt, Transport
from vbackup.repository.bounded import bounded
from vbackup.repository.sealing import Keys

D = TypeVar("D", bound="Document")
_MAX = 256 << 20


class Document(BaseModel):
    """Base of all: frozen; fields of later versions are left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def put_document(transport: Transport, keys: Keys, key: str, document: Document) -> None:
    """Seal and store a document under its object key, which the seal binds."""
    transport.put(key, keys.seal("document", key.encode(), document.model_dump_json().encode()))


def get_document(transport: Transport, keys: Keys, key: str, kind: type[D]) -> D:
    """Get and open a document. Raises: `NotFound`; `Corrupt` naming it."""
    try:
        return kind.model_validate_json(keys.open("document", key.encode(), bounded(transport, key, _MAX)))
    except (Corrupt, ValidationError):
        raise Corrupt(f"object {key} is damaged", hint="`vbackup check --repair` sets it right") from None
