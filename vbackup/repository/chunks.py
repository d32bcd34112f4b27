"""Chunks on their way into and out of packs: the chain of codecs, applied and undone.

An encoded chunk (a *blob*) is ``mask (1) | nonce (12) | payload``. Bit i of the mask says that codec i of the pack's
chain was applied: those that would not shrink a chunk are left out for it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence

from vbackup.api import Buffer, Codec, CodecContext, Corrupt, NotFound, Unsupported
from vbackup.repository.sealing import NONCE_SIZE, ChunkKind, Keys, derive

HEADER_SIZE = 1 + NONCE_SIZE
MAX_CODECS = 8


class Chain:
    """The codecs of one session, with its keys. Thread-safe."""

    def __init__(self, keys: Keys, codecs: Sequence[Codec], salt: bytes) -> None:
        self._keys = keys
        self._codecs = codecs
        self.salt = salt
        session = keys.session_key(salt)
        self._codec_keys = [derive(session, f"codec {i} {codec.name}") for i, codec in enumerate(codecs)]
        self._nonces = itertools.count(1)  # next() is atomic; a session's key never sees a nonce twice

    @property
    def names(self) -> list[str]:
        """Names of the codecs in the order of encoding."""
        return [codec.name for codec in self._codecs]

    def encode(self, kind: ChunkKind, chunk_id: bytes, data: Buffer) -> bytes:
        """Return the blob of a chunk."""
        nonce = next(self._nonces).to_bytes(NONCE_SIZE, "big")
        mask = 0
        for i, codec in enumerate(self._codecs):
            applied = mask | 1 << i
            encoded = codec.encode(data, self._context(i, nonce, kind, chunk_id, applied))
            if codec.encrypts or len(encoded) < len(data):
                data, mask = encoded, applied
        return b"".join((bytes((mask,)), nonce, data))

    def decode(self, kind: ChunkKind, chunk_id: bytes, blob: Buffer, size: int) -> bytes:
        """Return the plain bytes of a blob, ``size`` of them, or raise `Corrupt`."""
        view = memoryview(blob)
        if len(view) < HEADER_SIZE:
            raise Corrupt("the stored chunk is too short")
        mask, nonce, data = view[0], bytes(view[1:HEADER_SIZE]), view[HEADER_SIZE:]
        if mask >> len(self._codecs):
            raise Corrupt("the stored chunk names codecs that its pack has not")
        bound = size + size // 4 + 4096  # a codec adds little; the last step is held to the exact size below
        for i in reversed(range(len(self._codecs))):
            if mask >> i & 1:
                applied = mask & ((2 << i) - 1)
                context = self._context(i, nonce, kind, chunk_id, applied)
                data = memoryview(self._codecs[i].decode(data, context, bound))
        plain = bytes(data)
        if len(plain) != size or self._keys.chunk_id(kind, plain) != chunk_id:
            raise Corrupt("the stored chunk decodes to other bytes than its id stands for")
        return plain

    def _context(self, i: int, nonce: bytes, kind: ChunkKind, chunk_id: bytes, mask: int) -> CodecContext:
        associated = self._keys.repository + bytes((kind, mask)) + chunk_id
        return CodecContext(self._codec_keys[i], nonce, associated)


class Chains:
    """Chains by what a pack's header says, for reading."""

    def __init__(self, keys: Keys, codec: Callable[[str], Codec]) -> None:
        self._keys = keys
        self._codec = codec
        self._chains: dict[tuple[bytes, tuple[str, ...]], Chain] = {}

    def new(self, codecs: Sequence[Codec]) -> Chain:
        """Begin a session with a salt, and so a key, of its own."""
        return Chain(self._keys, codecs, os.urandom(32))

    def of(self, salt: bytes, names: Sequence[str]) -> Chain:
        """Return the chain that a pack was written with."""
        key = (salt, tuple(names))
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = Chain(self._keys, [self._find(name) for name in names], salt)
        return chain

    def _find(self, name: str) -> Codec:
        try:
            return self._codec(name)
        except NotFound as error:  # the data is there: that it cannot be read here is no damage
            raise Unsupported(error.message, hint=error.hint) from error
