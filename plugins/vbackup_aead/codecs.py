"""Authenticated encryption: AES-256-GCM (NIST SP 800-38D) and ChaCha20-Poly1305 (RFC 8439).

Encoded bytes are the ciphertext and its tag of 16 bytes. Key, nonce and associated data come with the context; that no
nonce is used twice under a key is the framework's promise, see `CodecContext`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import ClassVar, Protocol

from pydantic import BaseModel

from vbackup.api import CodecContext, Corrupt, Options
from vbackup.api.hypervisor import Buffer

_TAG = 16
_KEYS = 256
"""That are kept set up: those of so many sessions."""


class _Cipher(Protocol):
    def encrypt(self, nonce: bytes, data: Buffer, associated_data: bytes | None, /) -> bytes: ...
    def decrypt(self, nonce: bytes, data: Buffer, associated_data: bytes | None, /) -> bytes: ...


class _Aead(ABC):
    """What both have in common. A key is set up once: to do so for each chunk would hold Python's lock for 6 µs."""

    name: ClassVar[str]
    options: ClassVar[type[BaseModel]] = Options
    encrypts: ClassVar[bool] = True

    def __init__(self, options: Options) -> None:
        del options
        self._keyed = lru_cache(_KEYS)(self._cipher)

    def encode(self, data: Buffer, context: CodecContext) -> bytes:
        """See `Codec.encode`."""
        return self._keyed(context.key).encrypt(context.nonce, data, context.associated)

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:
        """See `Codec.decode`. `Corrupt` also if key, nonce or associated data are not those of `encode`."""
        from cryptography.exceptions import InvalidTag

        size = memoryview(data).nbytes - _TAG
        if not 0 <= size <= max_size:
            raise Corrupt(f"{self.name}: the chunk would have {size} bytes; it must have 0 to {max_size}")
        try:
            return self._keyed(context.key).decrypt(context.nonce, data, context.associated)
        except InvalidTag as error:
            raise Corrupt(f"{self.name}: the chunk is not what was encrypted, or not with this key") from error

    @staticmethod
    @abstractmethod
    def _cipher(key: bytes) -> _Cipher: ...


class Aes256Gcm(_Aead):
    """Fastest where the processor knows AES, as servers do."""

    name: ClassVar[str] = "aes-256-gcm"

    @staticmethod
    def _cipher(key: bytes) -> _Cipher:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != 32:  # it would take shorter ones, and be AES-128
            raise ValueError(f"AES-256 takes a key of 32 bytes, not {len(key)}")
        return AESGCM(key)


class ChaCha20Poly1305(_Aead):
    """Fast everywhere, and in constant time without help from the processor."""

    name: ClassVar[str] = "chacha20-poly1305"

    @staticmethod
    def _cipher(key: bytes) -> _Cipher:
        from cryptography.hazmat.primitives.ciphers import aead

        return aead.ChaCha20Poly1305(key)
