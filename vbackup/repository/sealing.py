"""What a key holder can do: name chunks, seal and open objects, make and open the secrets of writer sessions.

HKDF-SHA256 (RFC 5869) separates keys; AES-256-GCM (NIST SP 800-38D) with random 96-bit nonces seals. A sealed
object is ``nonce (12) | ciphertext | tag (16)``; its associated data binds kind, repository and name.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from enum import IntEnum

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BaseModel, ConfigDict, Field

from vbackup.api import Buffer, Corrupt, WrongKey
from vbackup.repository import hybrid

NONCE_SIZE = 12


class ChunkKind(IntEnum):
    """What a chunk is. Ids of different kinds never meet, since each kind has an id key of its own."""

    DATA = 1
    NODE = 2
    FILE = 3


def derive(secret: bytes, purpose: str, salt: bytes = b"") -> bytes:
    """Return 32 bytes for one purpose."""
    return HKDF(SHA256(), 32, salt, b"vbackup 1 " + purpose.encode()).derive(secret)


class Ring(BaseModel):
    """What a key slot holds. Who has ``write`` can write, list and prune; who has seeds can read what was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    write: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    generation: int = Field(ge=0, le=1 << 31, description="of the key pair that sessions are sealed to")
    public: str = Field(pattern=rf"^[0-9a-f]{{{2 * hybrid.PUBLIC_SIZE}}}$")
    seeds: Mapping[int, str] = Field(
        default_factory=dict, repr=False, description="of the key pairs by generation; hex"
    )

    @staticmethod
    def new(write: bytes | None = None) -> Ring:
        """Return the ring of a new repository, or of one that shares the write secret of another."""
        return Ring(write=(write or os.urandom(32)).hex(), generation=0, public="00" * hybrid.PUBLIC_SIZE).rotated()

    def rotated(self) -> Ring:
        """Return the ring with a new key pair for what is written from now on."""
        seed, generation = os.urandom(hybrid.SEED_SIZE), self.generation + 1
        seeds = {**self.seeds, generation: seed.hex()}
        return Ring(write=self.write, generation=generation, public=hybrid.public_key(seed).hex(), seeds=seeds)

    def for_writing(self) -> Ring:
        """Return what a writer gets that must not read."""
        return self.model_copy(update={"seeds": {}})


class Keys:
    """All that a ring gives in one repository. Thread-safe."""

    def __init__(self, ring: Ring, repository: bytes) -> None:
        write = bytes.fromhex(ring.write)
        self.ring = ring
        self.repository = repository
        self.family = derive(write, "family")[:16]
        """Names those repositories that share ids and so can exchange encoded chunks."""
        self._write = write
        self._seals = AESGCM(derive(write, "seal"))
        self._mac = derive(write, "repository object")
        self._ids = {kind: derive(write, f"chunk id {kind.name.lower()}") for kind in ChunkKind}

    @property
    def can_read(self) -> bool:
        """Whether data can be read with these keys, and not only written."""
        return bool(self.ring.seeds)

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

    def map_secret(self, session: bytes) -> bytes:
        """Return what the keys of a session's disk map nodes come from: every writer must read those."""
        return derive(self._write, "session maps", session)

    def seal_secret(self, session: bytes, secret: bytes) -> bytes:
        """Seal a session's secret to those that may read."""
        return hybrid.seal_to(bytes.fromhex(self.ring.public), secret, self._info(session))

    def open_secret(self, session: bytes, generation: int, sealed: bytes) -> bytes:
        """Undo `seal_secret`. Raises: `WrongKey` for a key that may not read, `Corrupt`."""
        if not self.can_read:
            raise WrongKey(
                "this key can write and not read", hint="use one that reads: `vbackup key list` shows what each may"
            )
        seed = self.ring.seeds.get(generation)
        if seed is None:
            raise WrongKey(
                f"the data was written for key pair {generation}, which this key does not have",
                hint="use a key that was added, or kept, when the data key was rotated",
            )
        secret = hybrid.open_with(bytes.fromhex(seed), sealed, self._info(session))
        if secret is None or len(secret) != hybrid.SEED_SIZE:
            raise Corrupt("the sealed secret of a session is damaged")
        return secret

    def _info(self, session: bytes) -> bytes:
        return b"vbackup 1 session" + self.family + session

    def seal(self, kind: str, name: bytes, data: bytes) -> bytes:
        """Encrypt and authenticate an object as what it is."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._seals.encrypt(nonce, data, self.associated(kind, name))

    def open(self, kind: str, name: bytes, sealed: Buffer) -> bytes:
        """Undo `seal`. Raises `Corrupt` for anything else than what was sealed under this kind and name."""
        return unseal(self._seals, sealed, self.associated(kind, name), kind)

    def associated(self, kind: str, name: bytes) -> bytes:
        """Return what a seal binds."""
        return b"\0".join((b"vbackup 1", kind.encode(), self.repository)) + b"\0" + name


def unseal(cipher: AESGCM, sealed: Buffer, associated: bytes, kind: str) -> bytes:
    """Open ``nonce | ciphertext | tag``. Raises `Corrupt`."""
    view = memoryview(sealed)
    try:
        return cipher.decrypt(bytes(view[:NONCE_SIZE]), view[NONCE_SIZE:], associated)
    except (InvalidTag, ValueError) as error:
        raise Corrupt(f"a {kind} is not what was stored: its seal is broken") from error
