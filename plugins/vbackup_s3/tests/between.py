"""A server between a transport and its store that answers in the store's place, or loses the store's answer."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

PATIENCE = 60
_OF_A_HOP = {"connection", "keep-alive", "transfer-encoding"}


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""


Harm = Callable[["_Handler", Asked], bool]
"""Does what it likes to a request and returns True, or leaves it to the store and returns False."""


class Between:
    """Passes everything on, but for what ``harm`` does. A context manager."""

    def __init__(self, store: str) -> None:
        self.harm: Harm = lambda _handler, _asked: False
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self.store = urlsplit(store).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"between": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._server.daemon_threads = True
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    between: Between

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer."""
        self.send_response_only(status)
        named = {name.lower().replace("_", "-"): value for name, value in headers.items()}
        for name, value in ({"content-length": str(len(body))} | named).items():
            self.send_header(name, value)
        with suppress(ConnectionError):  # who asked has gone
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    def refuse(self, status: int, code: str, more: str = "", **headers: str) -> None:
        """Send an error as S3 does."""
        body = f"<Error><Code>{code}</Code><Message>Please wait or not.</Message>{more}</Error>"
        self.answer(status, body.encode(), **headers)

    def pass_on(self) -> tuple[int, bytes, dict[str, str]]:
        """Let the store do it, and return its answer."""
        connection = http.client.HTTPConnection(self.between.store, timeout=PATIENCE)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(self.body)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())
        finally:
            connection.close()

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.between.asked.append(asked)
        if self.between.harm(self, asked):
            return
        status, body, headers = self.pass_on()
        self.answer(status, body, **{name: value for name, value in headers.items() if name.lower() not in _OF_A_HOP})

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_any  # noqa: N815 - names of http.server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
