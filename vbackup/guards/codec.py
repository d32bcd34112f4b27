"""The guard around each codec."""

from __future__ import annotations

import itertools
import logging

from pydantic import BaseModel

from vbackup.api import Buffer, Codec, CodecContext
from vbackup.guards.answers import kind_of
from vbackup.guards.blame import Blame, told

_BUILTIN = 256
"""Of so many chunks of a built-in codec one, and the first, is decoded again: for a two-hundredth of the time. Of a
stranger's it is each."""
_log = logging.getLogger(__name__)


class GuardedCodec:
    """Passes chunks on, and looks at what becomes of them.

    What a codec encodes it must be able to decode, or a backup is lost when it is needed: this is tried before any
    restore point can need it, with the default options, as a restore does.
    """

    def __init__(self, inner: Codec, blame: Blame, reader: Codec) -> None:
        """``reader`` is the same codec with its default options."""
        self.inner = inner
        self._reader = reader
        self.name: str = inner.name
        self.options: type[BaseModel] = inner.options
        self.encrypts: bool = inner.encrypts
        self._blame = blame
        self._numbers = itertools.count()
        self.encode = blame.often("encode", self._encode)
        self.decode = blame.often("decode", self._decode)

    def _encode(self, data: Buffer, context: CodecContext) -> bytes:
        try:
            encoded = self.inner.encode(data, context)
        except BaseException as error:  # noqa: BLE001 - raised again
            self._blame.reraise("encode", error)
        if type(encoded) is not bytes:
            raise self._blame.error(f"encode gave {kind_of(encoded)}, not bytes")
        if not self._blame.builtin or next(self._numbers) % _BUILTIN == 0:
            self._probe(data, encoded, context)
        return encoded

    def _decode(self, data: Buffer, context: CodecContext, max_size: int) -> bytes:
        try:
            decoded = self.inner.decode(data, context, max_size)
        except BaseException as error:  # noqa: BLE001 - raised again
            self._blame.reraise("decode", error)
        if type(decoded) is not bytes:
            raise self._blame.error(f"decode gave {kind_of(decoded)}, not bytes")
        if len(decoded) > max_size:
            raise self._blame.error(f"decode gave {len(decoded)} bytes where at most {max_size} are allowed")
        return decoded

    def _probe(self, data: Buffer, encoded: bytes, context: CodecContext) -> None:
        try:
            decoded = self._reader.decode(encoded, context, len(data))
        except BaseException as error:
            raise self._blame.error(f"it cannot decode what it encoded just now: {told(error)}") from error
        if decoded != data:
            raise self._blame.error("it decodes what it encoded just now to other bytes")
        _log.debug("codec %s decodes what it encodes", self.name)
