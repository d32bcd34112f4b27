"""A stand-in for the agent in a guest, as there is no system in ours: it says what real ones say."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


class Agent:
    """Listens at a socket, and remembers what it was asked. ``refuses`` has commands that it answers by an error."""

    def __init__(self, path: Path, *, refuses: Collection[str] = (), is_silent: bool = False) -> None:
        self.asked: list[str] = []
        self.frozen = False
        self.refuses = refuses
        self._is_silent = is_silent
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Be gone; once more is no error."""
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # who asked may be gone
                for request in _requests(connection):
                    if not self._is_silent:
                        connection.sendall(json.dumps(self._answer(request)).encode() + b"\n")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request["execute"]
        answer = {"id": request["id"]} if "id" in request else {}
        if command in self.refuses:
            return {**answer, "error": {"class": "GenericError", "desc": "the hook script failed"}}
        if command == "guest-sync":
            return {**answer, "return": request["arguments"]["id"]}
        self.asked.append(command)
        if command.startswith("guest-fsfreeze"):
            self.frozen = command == "guest-fsfreeze-freeze"
            return {**answer, "return": 2}
        return {**answer, "return": {}}


def _requests(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Requests follow each other without anything in between."""
    text = ""
    while part := connection.recv(4096):
        text += part.decode()
        with suppress(ValueError):  # there is more to come
            request, end = json.JSONDecoder().raw_decode(text)
            text = text[end:].lstrip()
            yield request
