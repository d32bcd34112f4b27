"""A server that answers what a test wrote: for what no good server does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vbackup_webdav.options import WebDavOptions


class Request(BaseHTTPRequestHandler):
    """What a script answers; the body has been read, unless the client waits to be told to send it."""

    body = b""

    def read_body(self) -> None:
        """Read it, as much as there is."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))


Script = Callable[[Request], None]
"""Answers one request; its method is ``request.command``."""


def answer(request: Request, status: int, body: bytes = b"", **headers: str) -> None:
    """Answer in full; underscores in the names of headers are hyphens."""
    request.send_response(status)
    headers = {"Content_Length": str(len(body)), **headers}
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def by_method(**scripts: Script) -> Script:
    """Answer each method by its own script; one without has status 404."""

    def script(request: Request) -> None:
        scripts.get(request.command, lambda request: answer(request, 404))(request)

    return script


XML = '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{}</D:multistatus>'
COLLECTION = "<D:resourcetype><D:collection/></D:resourcetype>"
OBJECT = "<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>"


def entry(path: str, prop: str, status: str = "HTTP/1.1 200 OK") -> str:
    """Return one response of a multistatus document."""
    propstat = f"<D:propstat><D:prop>{prop}</D:prop><D:status>{status}</D:status></D:propstat>"
    return f"<D:response><D:href>{path}</D:href>{propstat}</D:response>"


def listing(*entries: str) -> Script:
    """Answer PROPFIND by these."""
    return lambda request: answer(request, 207, XML.format("".join(entries)).encode())


class Store:
    """A script that keeps what is put, as a WebDAV server does; it knows no ranges.

    ``shows_half``: from the first byte on. ``says_continue``: that it waits for a body, to who asks for it.
    """

    def __init__(self, *, shows_half: bool = False, says_continue: bool = True) -> None:
        self.kept: dict[str, bytes] = {}
        self._shows_half = shows_half
        self._says_continue = says_continue

    def __call__(self, request: Request) -> None:
        getattr(self, f"_{request.command.lower()}")(request)

    def _options(self, request: Request) -> None:
        answer(request, 200, DAV="1,2")

    def _propfind(self, request: Request) -> None:
        if request.path.rstrip("/") == "/dav":
            listing(entry("/dav/", COLLECTION))(request)
        elif request.path in self.kept:
            listing(entry(request.path, OBJECT.format(len(self.kept[request.path]))))(request)
        else:
            answer(request, 404)

    def _put(self, request: Request) -> None:
        if self._shows_half:
            self.kept[request.path] = b""
        if "Expect" in request.headers:
            if self._says_continue:
                request.send_response_only(100)
                request.end_headers()
            request.read_body()
        if len(request.body) == int(request.headers["Content-Length"]):
            self.kept[request.path] = request.body
        answer(request, 201)

    def _get(self, request: Request) -> None:
        answer(request, 200, self.kept[request.path])

    _head = _get

    def _delete(self, request: Request) -> None:
        self.kept.pop(request.path, None)
        answer(request, 204)


@contextmanager
def scripted(script: Script, timeout: float) -> Iterator[WebDavOptions]:
    """Run a server that answers by ``script`` whatever it is asked; give the options of a transport there."""

    class Handler(Request):
        protocol_version = "HTTP/1.1"
        timeout = 20
        disable_nagle_algorithm = True  # headers and body are two packets

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self._scripted
            raise AttributeError(name)

        def _scripted(self) -> None:
            try:
                if "Expect" not in self.headers:
                    self.read_body()
                script(self)
            except OSError:  # the client has read enough, or its patience is over
                self.close_connection = True

        def handle_expect_100(self) -> bool:
            return True  # a script says 100 when it likes to

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield WebDavOptions(url=f"http://127.0.0.1:{server.server_port}/dav", timeout=timeout)
        finally:
            server.shutdown()
            thread.join()
