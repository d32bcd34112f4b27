"""Every bit is turned round, behind a checksum of four bytes."""

from __future__ import annotations

import zlib
from typing import ClassVar

from pydantic import BaseModel, Field

from vbackup.api import Buffer, CodecContext, Corrupt, Options

_TURNED = bytes(255 - value for value in range(256))


class RotOptions(Options):
    """Options of ``type: rot``."""

    level: int = Field(default=3, ge=1, le=9, description="1 is fastest, 9 is smallest")


class RotCodec:
    """A step that anybody can undo."""

    name: ClassVar[str] = "rot"
    options: ClassVar[type[BaseModel]] = RotOptions
    encrypts: ClassVar[bool] = False

    def __init__(self, options: RotOptions) -> None:
        self._options = options

    def encode(self, data: Buffer, context: CodecContext) -> bytes:
        """Turn the bits."""
        return zlib.crc32(data).to_bytes(4, "big") + bytes(data).translate(_TURNED)

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:
        """Turn them back."""
        if not 4 <= len(data) <= max_size + 4:
            raise Corrupt(f"rot: the chunk has {len(data)} bytes, which cannot be")
        plain = bytes(data[4:]).translate(_TURNED)
        if zlib.crc32(plain).to_bytes(4, "big") != data[:4]:
            raise Corrupt("rot: the chunk is not as it was written")
        return plain
