"""Reading a disk over NBD, as much of it as that needs.

Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md; QEMU's bitmaps:
https://www.qemu.org/docs/master/interop/nbd.html. A connection is made for each walk over the disk, and ends with it:
nothing of one that was left early is in the way of another. Data comes as simple replies, many requests under way;
block status, one request at a time, as structured ones.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vbackup.api import Block, CaptureLost, Extent, Kind, Range, Unavailable, merge, split

ALLOCATION = "base:allocation"
_DIRTY = "qemu:dirty-bitmap:"

_SECONDS = 120.0
_WINDOW = 16
"""Requests under way, as many as QEMU carries out at once ..."""
_WINDOW_BYTES = 32 << 20
"""... and the bytes that they ask for."""
_MOST_STATUS = 1 << 30

_GREETING = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">8sII")
_ANSWER = struct.Struct(">QIII")
_REQUEST = struct.Struct(">IHHQQI")
_SIMPLE = struct.Struct(">IIQ")
_CHUNK = struct.Struct(">IHHQI")
_STATUS = struct.Struct(">II")

_STRUCTURED_REPLY, _GO, _SET_META_CONTEXT = 8, 7, 10
_ACK, _INFO, _META_CONTEXT, _REFUSAL = 1, 3, 4, 1 << 31
_READ, _BLOCK_STATUS = 0, 7
_SIMPLE_MAGIC, _CHUNK_MAGIC, _REQUEST_MAGIC, _ANSWER_MAGIC = 0x67446698, 0x668E33EF, 0x25609513, 0x3E889045565A9
_DONE, _STATUS_CHUNK, _ERROR_CHUNK = 1, 5, 1 << 15
_ZERO_FLAG, _DIRTY_FLAG = 2, 1


@dataclass(frozen=True, slots=True)
class Export:
    """A disk at an NBD server that listens at ``path``; ``size`` in bytes, ``bitmap`` tells what changed."""

    path: Path
    name: str
    label: str
    size: int
    bitmap: str | None

    def allocation(self) -> Iterator[Extent]:
        """Yield the whole disk as data and zero."""
        with self._connected(ALLOCATION) as link:
            yield from merge(self._allocation(link, Range(0, self.size)))

    def changed(self) -> Iterator[Extent]:
        """Yield the whole disk as data, zero and unchanged; what changed and reads as zeros now is zero."""
        with self._connected(f"{_DIRTY}{self.bitmap}") as dirty, self._connected(ALLOCATION) as link:
            for extent in merge(self._dirty(dirty)):
                if extent.kind is Kind.UNCHANGED:
                    yield extent
                else:
                    yield from merge(self._allocation(link, Range(extent.offset, extent.length)))

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges, and yield a block for each, in the same order."""
        with self._connected(None) as link:
            waiting: deque[tuple[int, Range]] = deque()
            asked = 0
            for wanted in ranges:
                while waiting and (len(waiting) >= _WINDOW or asked + wanted.length > _WINDOW_BYTES):
                    handle, first = waiting.popleft()
                    asked -= first.length
                    yield Block(first.offset, link.data(handle))
                waiting.append((link.ask(_READ, wanted), wanted))
                asked += wanted.length
            for handle, first in waiting:
                yield Block(first.offset, link.data(handle))

    def _allocation(self, link: _Link, wanted: Range) -> Iterator[Extent]:
        for offset, length, flags in link.status(wanted):
            yield Extent(offset, length, Kind.ZERO if flags & _ZERO_FLAG else Kind.DATA)

    def _dirty(self, link: _Link) -> Iterator[Extent]:
        for offset, length, flags in link.status(Range(0, self.size)):
            yield Extent(offset, length, Kind.DATA if flags & _DIRTY_FLAG else Kind.UNCHANGED)

    @contextmanager
    def _connected(self, context: str | None) -> Iterator[_Link]:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_SECONDS)
                connection.connect(str(self.path))
                link = _Link(connection, self.label)
                size = link.open(self.name, context)
                if size != self.size:
                    raise CaptureLost(f"{self.label}: it has {size} bytes, and had {self.size} just now")
                yield link
        except OSError as error:
            raise CaptureLost(f"{self.label}: QEMU does not give its data any more: {error}") from error


class _Link:
    """One connection."""

    def __init__(self, connection: socket.socket, label: str) -> None:
        self._socket = connection
        self._label = label
        self._handles = itertools.count()
        self._asked: dict[int, Range] = {}
        self._done: dict[int, bytearray] = {}

    # Opening: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md#fixed-newstyle-negotiation

    def open(self, name: str, context: str | None) -> int:
        """Agree on an export, and on a context of block status if there is to be one; return the size in bytes."""
        magic, more, _ = _GREETING.unpack(self._receive(_GREETING.size))
        if (magic, more) != (b"NBDMAGIC", b"IHAVEOPT"):
            raise self._broken("its greeting is not NBD's")
        self._socket.sendall(struct.pack(">I", 3))
        export = struct.pack(">I", len(name)) + name.encode()
        if context is not None:
            self._option(_STRUCTURED_REPLY, b"")
            query = struct.pack(">II", 1, len(context)) + context.encode()
            if not any(kind == _META_CONTEXT for kind, _ in self._option(_SET_META_CONTEXT, export + query)):
                raise self._broken(f"it does not know {context}")
        for kind, data in self._option(_GO, export + b"\0\0"):
            if kind == _INFO and data[:2] == b"\0\0":
                return int.from_bytes(data[2:10], "big")
        raise self._broken("it does not say how large the disk is")

    def _option(self, option: int, data: bytes) -> list[tuple[int, bytes]]:
        self._socket.sendall(_OPTION.pack(b"IHAVEOPT", option, len(data)) + data)
        answers: list[tuple[int, bytes]] = []
        while True:
            magic, _, kind, length = _ANSWER.unpack(self._receive(_ANSWER.size))
            answer = bytes(self._receive(length))
            if magic != _ANSWER_MAGIC or kind & _REFUSAL:
                raise self._broken(f"it refused option {option}: {answer.decode(errors='replace')}")
            if kind == _ACK:
                return answers
            answers.append((kind, answer))

    # Afterwards

    def ask(self, command: int, wanted: Range) -> int:
        """Send a request; return its handle."""
        handle = next(self._handles)
        self._asked[handle] = wanted
        self._socket.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, command, handle, *wanted))
        return handle

    def data(self, handle: int) -> bytearray:
        """Return what was read; replies come in any order."""
        while handle not in self._done:
            magic, error, replied = _SIMPLE.unpack(self._receive(_SIMPLE.size))
            asked = self._asked.pop(replied, None)
            if magic != _SIMPLE_MAGIC or asked is None:
                raise self._broken("a reply is not one of ours")
            if error:
                raise Unavailable(f"{self._label}: QEMU cannot read at {asked.offset}: {os.strerror(error)}")
            self._done[replied] = self._receive(asked.length)
        return self._done.pop(handle)

    def status(self, wanted: Range) -> Iterator[tuple[int, int, int]]:
        """Yield (offset, length, flags) of the one context, covering ``wanted`` exactly."""
        for part in split([wanted], _MOST_STATUS):
            offset, end = part.offset, part.offset + part.length
            while offset < end:
                for length, flags in self._status(Range(offset, end - offset)):
                    length = min(length, end - offset)
                    if length:
                        yield offset, length, flags
                    offset += length

    def _status(self, wanted: Range) -> list[tuple[int, int]]:
        del self._asked[self.ask(_BLOCK_STATUS, wanted)]  # only one at a time
        found: list[tuple[int, int]] = []
        flags = 0
        while not flags & _DONE:
            magic, flags, kind, _, length = _CHUNK.unpack(self._receive(_CHUNK.size))
            data = self._receive(length)
            if magic != _CHUNK_MAGIC:
                raise self._broken("a reply is not one of ours")
            if kind & _ERROR_CHUNK:
                error = os.strerror(int.from_bytes(data[:4], "big"))
                raise Unavailable(f"{self._label}: QEMU cannot tell what is at {wanted.offset}: {error}")
            if kind == _STATUS_CHUNK:
                found += _STATUS.iter_unpack(data[4:])
        if not any(length for length, _ in found):
            raise self._broken(f"it tells nothing of what is at {wanted.offset}")
        return found

    def _receive(self, length: int) -> bytearray:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            received = self._socket.recv_into(view)
            if not received:
                raise CaptureLost(f"{self._label}: QEMU ended the connection")
            view = view[received:]
        return buffer

    def _broken(self, what: str) -> Unavailable:
        return Unavailable(f"{self._label}: QEMU's NBD server is not as it should be: {what}")
