"""Zstandard (RFC 8878), one frame for each chunk.

A frame states the size of its content, so that a decoder allocates just that and a frame that would not fit is
refused before anything is allocated. It has no checksum, since chunks are hashed.
"""

from __future__ import annotations

import threading
from typing import ClassVar

from pydantic import BaseModel, Field

from vbackup.api import CodecContext, Corrupt, Options
from vbackup.api.hypervisor import Buffer

_EMPTY = bytes.fromhex("28b52ffd2000010000")
"""The frame of nothing. The library takes any frame that claims no content without looking further."""


class ZstdOptions(Options):
    """Options of ``type: zstd``."""

    level: int = Field(default=3, ge=-7, le=22, description="-7 is fastest, 22 is smallest")


class _Contexts(threading.local):
    """One of each for every thread: a context must not be used by two at once, and is costly to make."""

    def __init__(self, level: int) -> None:
        import zstandard

        self.compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor()


class Zstd:
    """See the module."""

    name: ClassVar[str] = "zstd"
    options: ClassVar[type[BaseModel]] = ZstdOptions
    encrypts: ClassVar[bool] = False

    def __init__(self, options: ZstdOptions) -> None:
        self._contexts = _Contexts(options.level)

    def encode(self, data: Buffer, context: CodecContext) -> bytes:  # noqa: ARG002 - the role's signature
        """See `Codec.encode`."""
        return self._contexts.compressor.compress(data)

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:  # noqa: ARG002
        """See `Codec.decode`."""
        import zstandard

        try:
            frame = zstandard.get_frame_parameters(data)
            # What cannot be known is told as 2**64-1. No frame of ours has a window above its content.
            if frame.content_size > max_size or frame.window_size > max_size:
                raise Corrupt(f"zstd: the frame claims {frame.content_size} bytes where {max_size} are the most")
            if frame.content_size == 0:
                return self._nothing(data)
            return self._contexts.decompressor.decompress(data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Corrupt(f"zstd: the chunk cannot be decompressed: {error}") from error

    @staticmethod
    def _nothing(data: Buffer) -> bytes:
        if data != _EMPTY:
            raise Corrupt("zstd: a frame that claims no content has some")
        return b""
