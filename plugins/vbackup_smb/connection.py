"""A connection of smbprotocol that never waits for ever."""

from __future__ import annotations

import socket
import struct
import time
import uuid
from typing import Any

from smbprotocol.connection import Connection

CREDIT = 64 << 10
"""Bytes of a request that one credit pays for, MS-SMB2 3.1.5.2."""


class LimitedConnection(Connection):  # type: ignore[misc]
    """Bounds every wait for an answer to ``limit`` seconds, and every wait until the other side takes what is sent.

    Its own client id for each: a server would put several connections of one client into one process.
    """

    def __init__(self, server: str, port: int, limit: float) -> None:
        super().__init__(uuid.uuid4(), server, port, require_signing=True)
        self._limit = limit

    def connect(self, *arguments: Any, **named: Any) -> None:
        """Connect and negotiate."""
        super().connect(*arguments, timeout=self._limit, **named)
        seconds = struct.pack("ll", int(self._limit), 0)
        self.transport._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)  # noqa: SLF001 - no other way

    @property
    def credits(self) -> int:
        """How many of the server's credits are left for requests."""
        return int(self.sequence_window["high"] - self.sequence_window["low"])

    def block(self, largest: int) -> int:
        """Return how many bytes, up to ``largest``, to ask for at once: what the server has given credit for."""
        return min(largest, max(1, self.credits - 1) * CREDIT)

    def receive(self, request: Any, wait: bool = True, timeout: float | None = None, **named: Any) -> Any:  # noqa: FBT001, FBT002
        """Wait for the answer to a request. Raises: `TimeoutError`, and what the server says."""
        began = time.monotonic()
        try:
            return super().receive(request, wait, min(timeout or self._limit, self._limit), **named)
        except Exception:  # whatever it was goes on, but what silence is called
            if request.response is None and time.monotonic() - began >= self._limit:
                raise TimeoutError(f"the server did not answer within {self._limit:g} s") from None
            raise
