"""The repository's key pairs: HPKE (RFC 9180) with MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM.

The KEM is a hybrid of ML-KEM-768 (FIPS 203) and X25519 (RFC 7748): what is recorded today stays closed as long as one
of the two holds. A key pair comes from a seed of 32 bytes.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vbackup.api import Corrupt

SEED_SIZE = 32
PUBLIC_SIZE = 1184 + 32
OVERHEAD = 1088 + 32 + 16
"""Bytes that sealing adds: the encapsulated key and a tag."""

_MLKEM_PUBLIC = 1184
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@lru_cache(16)
def _private(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    expanded = HKDF(SHA256(), 96, b"", b"vbackup 1 key pair").derive(seed)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


def public_key(seed: bytes) -> bytes:
    """Return the public key of a seed: the ML-KEM-768 one (1184 bytes), then the X25519 one (32)."""
    lattice, curve = _private(seed)
    return lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()


def seal_to(public: bytes, data: bytes, info: bytes) -> bytes:
    """Encrypt to a public key, bound to ``info``; `OVERHEAD` bytes longer. Raises `Corrupt` for what is no key."""
    try:
        lattice = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC])
        key = MLKEM768X25519PublicKey(lattice, X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]))
    except ValueError as error:
        raise Corrupt("a public key is damaged") from error
    return _SUITE.encrypt(data, key, info)


def open_with(seed: bytes, sealed: bytes, info: bytes) -> bytes | None:
    """Undo `seal_to`; None for what was not sealed to this seed's key with this ``info``."""
    try:
        return _SUITE.decrypt(sealed, MLKEM768X25519PrivateKey(*_private(seed)), info)
    except (InvalidTag, ValueError):
        return None
