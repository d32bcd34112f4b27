"""Chunks on their way into and out of packs: the chain of codecs, applied and undone.

An encoded chunk (a *blob*) is ``mask (1) | nonce (12) | payload``. Bit i of the mask says that codec i of its
session's chain was applied: those that would not shrink a chunk are left out for it.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vbackup.api import Buffer, Codec, CodecContext, Corrupt, Unsupported, VBackupError
from vbackup.repository import hybrid
from vbackup.repository.sealing import NONCE_SIZE, ChunkKind, Keys, derive, unseal

HEADER_SIZE = 1 + NONCE_SIZE
MAX_CODECS = 8
_SECRET = 32
_NO_CONTEXT = CodecContext(b"", b"", b"")
"""For codecs that do not encrypt, and ignore it."""
_ORIGIN = struct.Struct(f"<16sI{_SECRET + hybrid.OVERHEAD}s")
CODECS_AT = _ORIGIN.size
"""Where the names of its codecs begin in an encoded `Origin`, in bytes."""


class Origin(NamedTuple):
    """The writer session that blobs come from: all that decoding them needs beside a key. Public."""

    session: bytes
    """16 random bytes."""
    generation: int
    """Of the key pair that the secret is sealed to."""
    sealed: bytes
    """The session's secret, for those that may read."""
    codecs: tuple[str, ...]

    def encode(self) -> bytes:
        """Return ``session (16) | generation (4) | sealed (1168) | codec names, joined by commas``."""
        return _ORIGIN.pack(self.session, self.generation, self.sealed) + ",".join(self.codecs).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`. Raises `Corrupt`."""
        try:
            session, generation, sealed = _ORIGIN.unpack_from(data)
            names = data[CODECS_AT:].decode("ascii")
        except (struct.error, UnicodeDecodeError) as error:
            raise Corrupt("the description of a session is damaged") from error
        codecs = tuple(names.split(",")) if names else ()
        if len(codecs) > MAX_CODECS:
            raise Corrupt("the description of a session names too many codecs")
        return cls(session, generation, sealed, codecs)


class Chain:
    """The codecs of one session, with its keys. Thread-safe."""

    def __init__(self, keys: Keys, codecs: Sequence[Codec], origin: Origin, secret: bytes | None) -> None:
        """``secret`` opens data and files; without it only the nodes of disk maps can be read."""
        self._keys = keys
        self._codecs = codecs
        self.origin = origin
        self.encoded_origin = origin.encode()
        maps = self._derived(keys.map_secret(origin.session))
        data = self._derived(secret) if secret is not None else None
        self._secret = secret
        self._codec_keys = {ChunkKind.NODE: maps, ChunkKind.DATA: data, ChunkKind.FILE: data}
        self._nonces = itertools.count(1)  # next() is atomic; a session's key never sees a nonce twice

    def _derived(self, secret: bytes) -> list[bytes]:
        return [derive(secret, f"codec {i} {codec.name}") for i, codec in enumerate(self._codecs)]

    def encode(self, kind: ChunkKind, chunk_id: bytes, data: Buffer) -> bytes:
        """Return the blob of a chunk."""
        nonce = next(self._nonces).to_bytes(NONCE_SIZE, "big")
        mask = 0
        for i, codec in enumerate(self._codecs):
            if codec.encrypts:
                mask |= 1 << i
                data = codec.encode(data, self._context(i, nonce, kind, chunk_id, mask))
            elif len(encoded := codec.encode(data, _NO_CONTEXT)) < len(data):
                mask |= 1 << i
                data = encoded
        return b"".join((bytes((mask,)), nonce, data))

    def decode(self, kind: ChunkKind, chunk_id: bytes, blob: Buffer, size: int) -> bytes:
        """Return the plain bytes of a blob, ``size`` of them. Raises: `Corrupt`; `WrongKey` if it may not be read."""
        view = memoryview(blob)
        if len(view) < HEADER_SIZE:
            raise Corrupt("the stored chunk is too short")
        mask, nonce, data = view[0], bytes(view[1:HEADER_SIZE]), view[HEADER_SIZE:]
        if mask >> len(self._codecs):
            raise Corrupt("the stored chunk names codecs that its session has not")
        bound = size + size // 4 + 4096  # a codec adds little; the last step is held to the exact size below
        for i in reversed(range(len(self._codecs))):
            if mask >> i & 1:
                codec, applied = self._codecs[i], mask & ((2 << i) - 1)
                context = self._context(i, nonce, kind, chunk_id, applied) if codec.encrypts else _NO_CONTEXT
                data = memoryview(codec.decode(data, context, bound))
        plain = data.obj if isinstance(data.obj, bytes) and len(data.obj) == len(data) else bytes(data)
        if len(plain) != size or self._keys.chunk_id(kind, plain) != chunk_id:
            raise Corrupt("the stored chunk decodes to other bytes than its id stands for")
        return plain

    def _context(self, i: int, nonce: bytes, kind: ChunkKind, chunk_id: bytes, mask: int) -> CodecContext:
        keys = self._codec_keys[kind]
        if keys is None:
            self._open_secret()  # says why not
            raise AssertionError("a chain without its secret")
        return CodecContext(keys[i], nonce, b"%b%c%c%b" % (self._keys.family, kind, mask, chunk_id))

    def seal_body(self, name: bytes, data: bytes) -> bytes:
        """Seal what only those that may read shall see, beside chunks. As these, it can go to others of the family."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._body_cipher().encrypt(nonce, data, self._body(name))

    def open_body(self, name: bytes, sealed: Buffer) -> bytes:
        """Undo `seal_body`. Raises: `Corrupt`, `WrongKey`."""
        return unseal(self._body_cipher(), sealed, self._body(name), "description")

    def _body(self, name: bytes) -> bytes:
        return b"vbackup 1 body" + self._keys.family + name

    def _body_cipher(self) -> AESGCM:
        return AESGCM(derive(self._open_secret(), "body"))

    def _open_secret(self) -> bytes:
        if self._secret is not None:
            return self._secret
        return self._keys.open_secret(self.origin.session, self.origin.generation, self.origin.sealed)


class Chains:
    """Chains by the sessions that blobs come from, for reading."""

    def __init__(self, keys: Keys, codec: Callable[[str], Codec]) -> None:
        self._keys = keys
        self._codec = codec
        self._chains: dict[bytes, Chain] = {}

    def new(self, session: bytes, codecs: Sequence[Codec]) -> Chain:
        """Begin a session, with a secret of its own."""
        secret = os.urandom(_SECRET)
        sealed = self._keys.seal_secret(session, secret)
        origin = Origin(session, self._keys.ring.generation, sealed, tuple(codec.name for codec in codecs))
        return Chain(self._keys, codecs, origin, secret)

    def of(self, encoded: bytes) -> Chain:
        """Return the chain of an encoded `Origin`. Raises: `Corrupt`, `WrongKey`, `Unsupported`."""
        chain = self._chains.get(encoded)
        if chain is None:
            origin = Origin.decode(encoded)
            codecs = [self._find(name) for name in origin.codecs]
            secret = None
            if self._keys.can_read:
                secret = self._keys.open_secret(origin.session, origin.generation, origin.sealed)
            chain = self._chains[encoded] = Chain(self._keys, codecs, origin, secret)
        return chain

    def unknown(self, data: bytes) -> set[str]:
        """Return which codecs, of those that an encoded `Origin` names from `CODECS_AT` on, cannot be undone here."""
        names: set[str] = set()
        for name in data.decode("ascii", "replace").split(",") if data else ():
            try:
                self._find(name)
            except Unsupported:
                names.add(name)
        return names

    def _find(self, name: str) -> Codec:
        try:
            return self._codec(name)
        except VBackupError as error:  # the data is there: that it cannot be read here is no damage
            if error.transient:
                raise
            raise Unsupported(error.message, hint=error.hint) from error
