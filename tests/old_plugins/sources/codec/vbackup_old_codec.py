"""A codec, as one was written for API version 1."""

import zlib

from vbackup.api import Corrupt, Options, hookimpl

VBACKUP_API_VERSION = 1


class OldOptions(Options):
    level: int = 6


class OldCodec:
    name = "old-codec"
    options = OldOptions
    encrypts = False

    def __init__(self, options):
        self._level = options.level

    def encode(self, data, context):
        return zlib.compress(data, self._level)

    def decode(self, data, context, max_size):
        decoder = zlib.decompressobj()
        try:
            plain = decoder.decompress(data, max_size + 1)
        except zlib.error as error:
            raise Corrupt("the chunk is no zlib stream") from error
        if len(plain) > max_size or not decoder.eof or decoder.unused_data:
            raise Corrupt("the chunk is longer or shorter than it should be")
        return plain


@hookimpl
def vbackup_register_codecs(register):
    register(OldCodec)
