"""Codecs of Python's standard library: always there, on any machine that must read a repository back."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, Field

from vbackup.api import CodecContext, Corrupt, Options
from vbackup.api.hypervisor import Buffer

_RAW_DEFLATE = -15
"""zlib's ``wbits`` for RFC 1951 without zlib's header and checksum: chunks are hashed."""


class DeflateOptions(Options):
    """Options of ``type: deflate``."""

    level: int = Field(default=6, ge=1, le=9, description="1 is fastest, 9 is smallest")


class Bzip2Options(Options):
    """Options of ``type: bzip2``."""

    level: int = Field(default=9, ge=1, le=9, description="block size in 100 kB")


class Deflate:
    """RFC 1951."""

    name: ClassVar[str] = "deflate"
    options: ClassVar[type[BaseModel]] = DeflateOptions
    encrypts: ClassVar[bool] = False

    def __init__(self, options: DeflateOptions) -> None:
        self._level = options.level

    def encode(self, data: Buffer, context: CodecContext) -> bytes:  # noqa: ARG002 - the role's signature
        """See `Codec.encode`."""
        import zlib

        return zlib.compress(data, self._level, wbits=_RAW_DEFLATE)

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:  # noqa: ARG002
        """See `Codec.decode`."""
        import zlib

        stream = zlib.decompressobj(wbits=_RAW_DEFLATE)
        try:
            # One more than allowed, since 0 would mean no limit, and to see the end of a chunk of just max_size.
            decoded = stream.decompress(data, max_size + 1)
        except zlib.error as error:
            raise Corrupt(f"deflate: the chunk cannot be decompressed: {error}") from error
        return _whole(self.name, decoded, max_size, ended=stream.eof and not stream.unused_data)


class Bzip2:
    """The format of the program of that name: small and slow."""

    name: ClassVar[str] = "bzip2"
    options: ClassVar[type[BaseModel]] = Bzip2Options
    encrypts: ClassVar[bool] = False

    def __init__(self, options: Bzip2Options) -> None:
        self._level = options.level

    def encode(self, data: Buffer, context: CodecContext) -> bytes:  # noqa: ARG002
        """See `Codec.encode`."""
        import bz2

        return bz2.compress(data, self._level)

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:  # noqa: ARG002
        """See `Codec.decode`."""
        import bz2

        stream = bz2.BZ2Decompressor()
        try:
            decoded = stream.decompress(data, max_size + 1)
        except (OSError, ValueError) as error:  # how bz2 reports bad data; no I/O is done here
            raise Corrupt(f"bzip2: the chunk cannot be decompressed: {error}") from error
        return _whole(self.name, decoded, max_size, ended=stream.eof and not stream.unused_data)


class Nothing:
    """Leaves the bytes as they are."""

    name: ClassVar[str] = "none"
    options: ClassVar[type[BaseModel]] = Options
    encrypts: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        del options

    def encode(self, data: Buffer, context: CodecContext) -> bytes:  # noqa: ARG002
        """See `Codec.encode`."""
        return bytes(data)

    def decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:  # noqa: ARG002
        """See `Codec.decode`."""
        if memoryview(data).nbytes > max_size:
            raise Corrupt(f"none: the chunk is longer than {max_size} bytes")
        return bytes(data)


def _whole(name: str, decoded: bytes, max_size: int, *, ended: bool) -> bytes:
    if len(decoded) > max_size:
        raise Corrupt(f"{name}: the chunk is longer than {max_size} bytes")
    if not ended:
        raise Corrupt(f"{name}: the chunk is cut short, or something follows it")
    return decoded
