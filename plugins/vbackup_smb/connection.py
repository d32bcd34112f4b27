"""A connection of smbprotocol that never waits for ever."""

from __future__ import annotations

import socket
import struct
import time
import uuid
from typing import Any

from smbprotocol.connection import Connection


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

    def receive(self, request: Any, wait: bool = True, timeout: float | None = None, **named: Any) -> Any:  # noqa: FBT001, FBT002
        """Wait for the answer to a request. Raises: `TimeoutError`, and what the server says."""
        began = time.monotonic()
        try:
            return super().receive(request, wait, min(timeout or self._limit, self._limit), **named)
        except Exception:
            if request.response is None and time.monotonic() - began >= self._limit:
                raise TimeoutError(f"the server did not answer within {self._limit:g} s") from None
            raise
