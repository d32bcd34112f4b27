"""An NBD client that keeps many requests in flight, and what a disk holds as extents.

Protocol: https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md; QEMU's own contexts:
https://www.qemu.org/docs/master/interop/nbd.html.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vbackup.api import Block, CaptureLost, Extent, Kind, Range, Run, Unsupported, cover, merge, split
from vbackup_qemu.buffers import BUFFERS
from vbackup_qemu.connection import FLUSH, SILENCE, CommandError, Connection
from vbackup_qemu.window import Window, joined, pieces

ALLOCATION = "base:allocation"
MAX_STATUS = 2 << 30
"""A length in the protocol has 32 bits; this is below, and a multiple of every block size."""

_STATUS_IN_FLIGHT = 4 * MAX_STATUS
"""Bytes of disk that are asked for at once: an answer may have 32,768 extents for each 2 GiB of a qcow2 image."""
_ZERO_FLAG = 2  # NBD_STATE_ZERO; NBD_STATE_HOLE (1) alone says nothing of the content
_DIRTY_FLAG = 1
_CANNOT_ZERO = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def bitmap_context(bitmap: str) -> str:
    """Return the context under which QEMU shows a dirty bitmap."""
    return f"qemu:dirty-bitmap:{bitmap}"


class NbdClient:
    """A client of one export behind a unix socket. Used by one thread at a time.

    A server answers a status request for all contexts of its connection at once, and the allocation of a large disk
    is slow to tell; so each context after the first has a connection of its own, and asking a dirty bitmap about
    the whole disk costs nothing else.

    ``label`` names the disk in messages. A server that says nothing for ``silence`` seconds while it owes an answer
    counts as lost. Raises: `Unavailable` when there is no server, `Unsupported` without libnbd.
    """

    def __init__(
        self,
        socket: Path,
        export: str = "",
        *,
        contexts: Sequence[str] = (ALLOCATION,),
        depth: int = 128,
        label: str | None = None,
        silence: float = SILENCE,
    ) -> None:
        self._depth = depth
        name = label or export or socket.name
        self._data = Connection(socket, export, contexts[:1], name, silence=silence)
        self._connections = [self._data]
        try:
            for context in contexts[1:]:
                self._connections.append(Connection(socket, export, [context], name, silence=silence))
        except BaseException:
            self.close()
            raise
        self.size = self._data.size
        self._of_context = {c: connection for connection in self._connections for c in connection.contexts}
        self._name = name

    @property
    def contexts(self) -> frozenset[str]:
        """The contexts that the server knows, of those asked for."""
        return frozenset(self._of_context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect at once, whatever is under way."""
        for connection in self._connections:
            connection.close()

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges (each at most 16 MiB) and yield a block for each, in the same order.

        ``ranges`` is consumed ahead of what is yielded. The blocks' bytearrays belong to the caller. May be left
        early, and ``ranges`` may itself ask this client for `status`.

        Raises: `CaptureLost` when the connection breaks, `Unavailable` when the storage fails.
        """
        window = Window[tuple[Range, bytearray]](self._depth)
        try:
            self._data.settle()
            for wanted in ranges:
                while window.is_full(wanted.length):
                    yield self._finish_read(*window.pop())
                buffer = BUFFERS.take(wanted.length)
                window.push(self._data.start_read(wanted.offset, buffer), wanted.length, (wanted, buffer))
            while window:
                yield self._finish_read(*window.pop())
        except CommandError as error:
            raise self._data.error("a read", error, writing=False) from error
        finally:
            self._data.abandon(window.cookies())

    def _finish_read(self, cookie: int, item: tuple[Range, bytearray]) -> Block:
        wanted, buffer = item
        try:
            self._data.wait(cookie)
        except CommandError as error:
            what = f"reading {wanted.length} bytes at {wanted.offset}"
            raise self._data.error(what, error, writing=False) from error
        return Block(wanted.offset, buffer)

    def status(self, context: str, ranges: Iterable[Range] | None = None) -> Iterator[tuple[int, int, int]]:
        """Yield (offset, length, flags) of a context, covering exactly ``ranges`` (None: the disk), in the same order.

        Many requests are under way, and ``ranges`` is consumed ahead of what is yielded. May be left early.

        Raises: `CaptureLost`, `Unavailable`; `Unsupported` when the server does not know the context.
        """
        connection = self._of_context.get(context)
        if connection is None:
            raise Unsupported(f"{self._name}: the NBD server does not offer {context}")
        window = Window[Range](self._depth, _STATUS_IN_FLIGHT)
        offset = 0
        try:
            connection.settle()
            for wanted in split([Range(0, self.size)] if ranges is None else ranges, MAX_STATUS):
                offset = wanted.offset
                while window.is_full(wanted.length):
                    yield from self._answer(connection, context, *window.pop())
                window.push(connection.start_status(*wanted), wanted.length, wanted)
            while window:
                yield from self._answer(connection, context, *window.pop())
        except CommandError as error:
            raise connection.error(f"asking for {context} at {offset}", error, writing=False) from error
        finally:
            connection.abandon(window.cookies())

    def _answer(
        self, connection: Connection, context: str, cookie: int, wanted: Range
    ) -> Iterator[tuple[int, int, int]]:
        """Yield what covers ``wanted``, asking again for what an answer leaves out."""
        offset, end = wanted.offset, wanted.offset + wanted.length
        while True:
            start = offset
            for size, flags in connection.extents(cookie, context):
                size = min(size, end - offset)  # noqa: PLW2901 - the last extent may reach beyond the request
                if size:
                    yield offset, size, flags
                offset += size
            if offset >= end:
                return
            if offset == start:
                raise CaptureLost(f"{self._name}: the NBD server tells nothing of {context} at {offset}")
            cookie = connection.start_status(offset, end - offset)

    def write(self, runs: Iterable[Run], *, zeroed: bool) -> None:
        """Write ``runs`` and flush. Their data must not change until this returns.

        With ``zeroed`` the disk is known to read as zeros, and zeros are not written again. Whatever fails, raises:
        `NoSpace`, or `Unavailable`.
        """
        window = Window[tuple[Run, int]](self._depth)
        can_zero = self._data.can("zero")
        try:
            self._data.settle()
            for run in pieces(joined(runs), skip_zeros=zeroed, zeros_as_data=not can_zero):
                size = run.length if run.data is not None else 0
                while window.is_full(size):
                    self._finish_write(*window.pop())
                window.push(self._start_write(run), size, (run, size))
            while window:
                self._finish_write(*window.pop())
            if self._data.can("flush"):
                self._data.wait(self._data.start_flush(), FLUSH)
        except CommandError as error:
            raise self._data.error("writing", error, writing=True) from error
        finally:
            self._data.abandon(window.cookies())

    def _start_write(self, run: Run) -> int:
        if run.data is None:
            return self._data.start_zero(run.offset, run.length)
        return self._data.start_write(run.offset, run.data)

    def _finish_write(self, cookie: int, item: tuple[Run, int]) -> None:
        run, _ = item
        try:
            self._data.wait(cookie)
        except CommandError as error:
            if run.data is not None or error.errno not in _CANNOT_ZERO:
                what = f"writing {run.length} bytes at {run.offset}"
                raise self._data.error(what, error, writing=True) from error
            for piece in pieces([run], skip_zeros=False, zeros_as_data=True):
                self._data.wait(self._start_write(piece))


def allocation(client: NbdClient) -> Iterator[Extent]:
    """Yield the whole disk as data and zero."""
    return cover(merge(_allocation(client)), client.size)


def dirty(client: NbdClient, context: str) -> Iterator[Extent]:
    """Yield the whole disk as data (dirty) and unchanged, from a dirty bitmap."""
    return cover(merge(_dirty(client, context)), client.size)


def changed(client: NbdClient, context: str) -> Iterator[Extent]:
    """Yield the whole disk as data, zero and unchanged.

    What is dirty and reads as zeros now (written so, or discarded) is zero, never left out. The allocation is asked
    for in dirty ranges only: of a whole large disk it can take many minutes.
    """
    return cover(merge(_changed(client, context)), client.size)


def _allocation(client: NbdClient, ranges: Iterable[Range] | None = None) -> Iterator[Extent]:
    for start, size, flags in client.status(ALLOCATION, ranges):
        yield Extent(start, size, Kind.ZERO if flags & _ZERO_FLAG else Kind.DATA)


def _dirty(client: NbdClient, context: str) -> Iterator[Extent]:
    for start, size, flags in client.status(context):
        yield Extent(start, size, Kind.DATA if flags & _DIRTY_FLAG else Kind.UNCHANGED)


def _changed(client: NbdClient, context: str) -> Iterator[Extent]:
    end = 0
    extents = merge(_dirty(client, context))
    for extent in _allocation(client, (Range(e.offset, e.length) for e in extents if e.kind is Kind.DATA)):
        if extent.offset > end:
            yield Extent(end, extent.offset - end, Kind.UNCHANGED)
        yield extent
        end = extent.end
    if end < client.size:
        yield Extent(end, client.size - end, Kind.UNCHANGED)
