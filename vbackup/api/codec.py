"""The codec role: a reversible bytes-to-bytes step on one chunk."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel

from vbackup.api.hypervisor import Buffer


class CodecContext(NamedTuple):
    """What an encrypting codec needs; others get an empty one."""

    key: bytes
    """32 bytes, made for this codec alone and for one session of one repository."""
    nonce: bytes
    """12 bytes that never repeat under `key`. The framework stores it; a codec need not."""
    associated: bytes
    """What the bytes are: authenticated, not stored. Decoding with other ones must fail."""


class Codec(Protocol):
    """A reversible step. Instances are stateless and used by many threads at once."""

    name: ClassVar[str]
    """The ``type:`` in YAML, stored in every pack: it must decode what it ever encoded, for ever."""
    options: ClassVar[type[BaseModel]]
    """The other keys of that entry; decoding must not depend on them: their defaults are used for it."""
    encrypts: ClassVar[bool]
    """Whether this hides and authenticates the bytes. Others are left out for a chunk that they would not shrink."""

    def __init__(self, options: Any) -> None: ...

    def encode(self, data: Buffer, context: CodecContext) -> bytes:
        """Return the encoded bytes."""

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:
        """Return the bytes that `encode` was given, never more than ``max_size``.

        Raises: `Corrupt` for anything that `encode` did not make, with this context.
        """
