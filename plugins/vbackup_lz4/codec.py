"""LZ4 blocks: four bytes (little-endian) for the size of the content, then one raw LZ4 block."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, Field

from vbackup.api import CodecContext, Corrupt, Options
from vbackup.api.hypervisor import Buffer

_HEADER = 4


class Lz4Options(Options):
    """Options of ``type: lz4``."""

    level: int = Field(default=0, ge=0, le=12, description="0 is fastest; 1 to 12 compress more (LZ4-HC), slowly")


class Lz4:
    """See the module."""

    name: ClassVar[str] = "lz4"
    options: ClassVar[type[BaseModel]] = Lz4Options
    encrypts: ClassVar[bool] = False

    def __init__(self, options: Lz4Options) -> None:
        self._how: dict[str, Any] = (
            {"mode": "high_compression", "compression": options.level} if options.level else {"mode": "default"}
        )

    def encode(self, data: Buffer, context: CodecContext) -> bytes:  # noqa: ARG002 - the role's signature
        """See `Codec.encode`."""
        import lz4.block

        encoded: bytes = lz4.block.compress(data, store_size=True, **self._how)
        return encoded

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:  # noqa: ARG002
        """See `Codec.decode`."""
        import lz4.block

        view = memoryview(data)
        size = int.from_bytes(view[:_HEADER], "little")
        if len(view) <= _HEADER or size > max_size:
            raise Corrupt(f"lz4: {len(view)} bytes claim to hold {size}, where {max_size} are the most")
        try:
            decoded: bytes = lz4.block.decompress(view[_HEADER:], uncompressed_size=size)
        except lz4.block.LZ4BlockError as error:
            raise Corrupt(f"lz4: the chunk cannot be decompressed: {error}") from error
        if len(decoded) != size:
            raise Corrupt(f"lz4: the chunk holds {len(decoded)} bytes and claims {size}")
        return decoded
