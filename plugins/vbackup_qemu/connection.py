"""One connection to an NBD server, and the commands under way on it.

The rule that everything here serves: memory that libnbd may still write to or read from must stay alive until the
command is retired or the handle is closed. libnbd touches it only inside its own calls, so the table of commands
under way, which lives as long as the handle, is enough: whoever loses interest in a command just leaves it there.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vbackup.api import Buffer, CaptureLost, NoSpace, Unavailable, VBackupError
from vbackup_qemu import libnbd

POLL_MS = 500
"""How long one poll may last, so that a signal is noticed while the server says nothing."""
SILENCE = 300.0
"""Seconds for which a server may say nothing while it owes an answer; then it counts as lost."""
FLUSH = 3600.0
"""The same for a flush, which may have gigabytes to write before it can say anything."""
MAX_SILENCES = 10
"""Polls without an answer after which a closing connection gives up."""

_GONE = {errno.ENOTCONN, errno.ESHUTDOWN, errno.EPIPE, errno.ECONNRESET, errno.ETIMEDOUT}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class CommandError(Exception):
    """The server refused or failed one command; ``errno`` says why, 0 when nobody knows."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number


class Connection:
    """A libnbd handle. Used by one thread at a time.

    Constructing connects; raises `Unavailable`, and `Unsupported` without libnbd.
    """

    def __init__(
        self, socket: Path, export: str, contexts: Sequence[str], label: str, *, silence: float = SILENCE
    ) -> None:
        self._library = libnbd.load()
        self._label = label
        self._silence = silence
        self._is_silent = False
        self._handle: int | None = self._library.nbd_create()
        self._under_way: dict[int, object] = {}  # cookie -> the memory of the command
        self._abandoned: list[int] = []
        self._answers: dict[int, list[tuple[bytes, list[int]]]] = {}  # number of a status request -> what came so far
        self._asked: dict[int, int] = {}  # cookie -> number
        self._numbers = itertools.count(1)
        self._collect = libnbd.ExtentFunction(self._on_extents)
        try:
            self._connect(socket, export, contexts)
        except BaseException:
            self.close()
            raise

    def _connect(self, socket: Path, export: str, contexts: Sequence[str]) -> None:
        try:
            self._check("nbd_set_export_name", export.encode())
            self._check("nbd_set_pread_initialize", False)  # every byte is read, or the command fails
            for context in contexts:
                self._check("nbd_add_meta_context", context.encode())
            self._check("nbd_aio_connect_unix", os.fsencode(socket))
            while self._check("nbd_aio_is_connecting"):
                self._poll(self._silence)
            self.size = self._check("nbd_get_size")
            self.contexts = frozenset(c for c in contexts if self._check("nbd_can_meta_context", c.encode()) == 1)
        except CommandError as error:
            raise Unavailable(f"{self._label}: no NBD connection to {socket}: {error}") from error

    def close(self) -> None:
        """Take leave of the server and close the handle; only then is the memory of commands let go.

        What is under way is waited for, since a server (maybe a machine's QEMU) may not take it well when a client
        vanishes in the middle; but not for long once it says nothing more.
        """
        if self._handle is None:
            return
        with suppress(CommandError):
            silences = 0
            while silences < MAX_SILENCES and self._check("nbd_aio_in_flight"):
                silences += self._check("nbd_poll", POLL_MS) == 0
            self._check("nbd_aio_disconnect", 0)
        self._library.nbd_close(self._handle)
        self._handle = None
        self._under_way.clear()

    def can(self, what: str) -> bool:
        """Whether the server offers ``zero`` or ``flush``."""
        return self._check(f"nbd_can_{what}") == 1

    def start_read(self, offset: int, buffer: bytearray) -> int:
        """Begin to fill ``buffer`` from ``offset``; returns a cookie for `wait`."""
        memory = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        return self._start(memory, "nbd_aio_pread", ctypes.addressof(memory), len(buffer), offset)

    def start_write(self, offset: int, data: Buffer) -> int:
        """Begin to write ``data``, which must not change until the command is retired."""
        memory, address = _address(data)
        return self._start(memory, "nbd_aio_pwrite", address, len(data), offset)

    def start_zero(self, offset: int, length: int) -> int:
        """Begin to write zeros, as a hole where the server can."""
        return self._start(None, "nbd_aio_zero", length, offset)

    def start_flush(self) -> int:
        """Begin a flush: what was written before is durable when it is done."""
        return self._start(None, "nbd_aio_flush")

    def wait(self, cookie: int, silence: float | None = None) -> None:
        """Wait until a command is done. Raises `CommandError` when it failed, or nothing is heard for ``silence`` s."""
        while not self._done(cookie):
            try:
                self._poll(self._silence if silence is None else silence)
            except CommandError as error:
                if self._done(cookie):  # raises the command's own error if there is one
                    return
                raise CommandError(str(error), error.errno if self._is_silent else errno.ENOTCONN) from error

    def _poll(self, silence: float) -> None:
        """Wait until something happens. A server that was silent for too long once is not waited for again."""
        deadline = time.monotonic() + silence
        while not self._is_silent:
            if self._check("nbd_poll", POLL_MS):
                return
            self._is_silent = time.monotonic() > deadline
        raise CommandError(f"the server says nothing for {silence:.0f} s", errno.ETIMEDOUT)

    def abandon(self, cookies: Iterable[int]) -> None:
        """Lose interest in commands that are under way."""
        for cookie in cookies:
            self._abandoned.append(cookie)
            self._answers.pop(self._asked.pop(cookie, 0), None)

    def settle(self) -> None:
        """Wait for what was abandoned, so that it does not pile up; its errors are nobody's any more."""
        while self._abandoned:
            try:
                self.wait(self._abandoned.pop())
            except CommandError:
                continue

    def start_status(self, offset: int, length: int) -> int:
        """Begin to ask for the block status from ``offset``; returns a cookie for `extents`."""
        number = next(self._numbers)
        self._answers[number] = []
        callback = libnbd.ExtentCallback(self._collect, number, None)
        cookie = self._start(None, "nbd_aio_block_status", length, offset, callback)
        self._asked[cookie] = number
        return cookie

    def extents(self, cookie: int, context: str) -> list[tuple[int, int]]:
        """Wait for a block status: (length, flags), maybe covering less or more than was asked for."""
        number = self._asked.pop(cookie)
        try:
            self.wait(cookie)
        finally:
            answer = self._answers.pop(number)
        numbers = [entry for name, entries in answer if name == context.encode() for entry in entries]
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def error(self, what: str, error: CommandError, *, writing: bool) -> VBackupError:
        """Translate a failed command: a lost connection, a full disk, or a failure of the storage."""
        message = f"{self._label}: {what} failed: {error}"
        if error.errno in _FULL:
            return NoSpace(message, hint="make room where the disk is written to")
        if error.errno in _GONE or self._is_gone():
            return Unavailable(message) if writing else CaptureLost(message)
        return Unavailable(message, hint="look at the storage under this disk", transient=False)

    def _is_gone(self) -> bool:
        handle = self._handle
        return handle is None or bool(self._library.nbd_aio_is_dead(handle) or self._library.nbd_aio_is_closed(handle))

    def _start(self, memory: object, function: str, *arguments: Any) -> int:
        cookie = self._check(function, *arguments, libnbd.NO_COMPLETION, 0)
        self._under_way[cookie] = memory
        return cookie

    def _done(self, cookie: int) -> bool:
        try:
            done = self._check("nbd_aio_command_completed", cookie) == 1
        except CommandError:
            self._under_way.pop(cookie, None)
            raise
        if done:
            del self._under_way[cookie]
        return done

    def _check(self, function: str, *arguments: Any) -> int:
        if self._handle is None:
            raise CommandError("the connection was closed", errno.ENOTCONN)
        result: int = getattr(self._library, function)(self._handle, *arguments)
        if result == -1:
            text: bytes = self._library.nbd_get_error() or b"unknown error"
            raise CommandError(text.decode(errors="replace"), self._library.nbd_get_errno())
        return result

    def _on_extents(self, number: int, name: bytes, _offset: int, entries: Any, count: int, _error: object) -> int:
        if number in self._answers:  # else nobody waits for it any more
            self._answers[number].append((name, entries[:count]))
        return 0


def _address(data: Buffer) -> tuple[object, int]:
    """Return what keeps the memory alive, and where it is."""
    if isinstance(data, memoryview) and (data.readonly or not data.c_contiguous):
        data = bytes(data)  # ctypes gives no address of a read-only view
    if isinstance(data, bytes):
        address = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        return data, address or 0
    memory = (ctypes.c_char * len(data)).from_buffer(data)
    return memory, ctypes.addressof(memory)
