"""Brotli on one chunk."""

from __future__ import annotations

from typing import ClassVar

import brotli
from pydantic import BaseModel, Field

from vbackup.api import Buffer, CodecContext, Corrupt, Options


class BrotliOptions(Options):
    """Options of ``type: brotli``."""

    quality: int = Field(default=5, ge=0, le=11, description="0 is fastest, 11 is smallest")


class Brotli:
    """See `vbackup.api.Codec`."""

    name: ClassVar[str] = "brotli"
    options: ClassVar[type[BaseModel]] = BrotliOptions
    encrypts: ClassVar[bool] = False

    def __init__(self, options: BrotliOptions) -> None:
        self._quality = options.quality

    def encode(self, data: Buffer, context: CodecContext) -> bytes:
        """See `Codec.encode`."""
        del context
        return bytes(brotli.compress(data, quality=self._quality))

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:
        """See `Codec.decode`. The end of the stream is a part of it, and nothing may follow."""
        del context
        stream = brotli.Decompressor()
        try:
            # One more than allowed, to see the end of a chunk of just max_size; it may give a block more than that.
            decoded = bytes(stream.process(data, output_buffer_limit=max_size + 1))
        except brotli.error as error:
            raise Corrupt(f"brotli: the chunk cannot be decompressed: {error}") from error
        if len(decoded) > max_size:
            raise Corrupt(f"brotli: the chunk is longer than {max_size} bytes")
        if not stream.is_finished():
            raise Corrupt("brotli: the chunk is cut short")
        return decoded
