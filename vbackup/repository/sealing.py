"""Keys derived from the master secret, and the seal on every object that is not a chunk.

HKDF-SHA256 (RFC 5869) separates the keys; AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces seals. A sealed
object is ``nonce (12) | ciphertext | tag (16)``; its associated data binds kind, repository and name.
"""

from __future__ import annotations

import hmac
import os
from enum import IntEnum

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vbackup.api import Buffer, Corrupt

NONCE_SIZE = 12


class ChunkKind(IntEnum):
    """What a chunk is. Ids of different kinds never meet, since each kind has an id key of its own."""

    DATA = 1
    NODE = 2
    FILE = 3


def derive(secret: bytes, purpose: str, salt: bytes = b"") -> bytes:
    """Return 32 bytes for one purpose."""
    return HKDF(SHA256(), 32, salt, b"vbackup 1 " + purpose.encode()).derive(secret)


class Keys:
    """All that is derived from one repository's master secret."""

    def __init__(self, master: bytes, repository: bytes) -> None:
        self.repository = repository
        self._session = derive(master, "session")
        self._seals = AESGCM(derive(master, "seal"))
        self._mac = derive(master, "repository object")
        self._ids = {kind: derive(master, f"chunk id {kind.name.lower()}") for kind in ChunkKind}

    def chunk_id(self, kind: ChunkKind, data: Buffer) -> bytes:
        """Name a chunk: keyed BLAKE3 of its plain bytes."""
        return blake3(data, key=self._ids[kind]).digest()

    def mac(self, data: bytes) -> str:
        """Return the MAC of a public object, as 64 hex digits."""
        return blake3(data, key=self._mac).hexdigest()

    @staticmethod
    def mac_differs(one: str, other: str) -> bool:
        """Compare two MACs in constant time."""
        return not hmac.compare_digest(one, other)

    def session_key(self, salt: bytes) -> bytes:
        """Return the key of one writer session, from its public salt."""
        return derive(self._session, "session key", salt)

    def seal(self, kind: str, name: bytes, data: bytes) -> bytes:
        """Encrypt and authenticate an object as what it is."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._seals.encrypt(nonce, data, self._associated(kind, name))

    def open(self, kind: str, name: bytes, sealed: Buffer) -> bytes:
        """Undo `seal`. Raises `Corrupt` for anything else than what was sealed under this kind and name."""
        view = memoryview(sealed)
        try:
            return self._seals.decrypt(bytes(view[:NONCE_SIZE]), view[NONCE_SIZE:], self._associated(kind, name))
        except (InvalidTag, ValueError) as error:
            raise Corrupt(f"a {kind} is not what was stored: its seal is broken") from error

    def _associated(self, kind: str, name: bytes) -> bytes:
        return b"\0".join((b"vbackup 1", kind.encode(), self.repository)) + b"\0" + name
