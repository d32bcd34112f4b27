"""A link with latency and no limit of bandwidth: a proxy that gives each byte on, a fixed time after it came.

It is a process of its own, ``python -m tests.bench.delay FROM TO SECONDS``, and each connection has two threads for
each direction, which drop the GIL for all but a few microseconds of a piece: so it carries gigabytes a second.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator

from tests.servers.daemon import Daemons, free_port
from vbackup.testing.lab.libvirtd import until

_PIECE = 256 << 10
_MOST_PIECES = 1024
"""On the way in one direction of one connection, at most; the windows of TCP are no larger on a fast link."""


@contextlib.contextmanager
def delayed(to: str, seconds: float) -> Iterator[str]:
    """Yield an address that leads to ``to`` (``HOST:PORT``, or a socket's path), ``seconds`` later each way."""
    with Daemons("delay") as daemons:
        here = f"{daemons.root}/link" if to.startswith("/") else f"127.0.0.1:{free_port()}"
        daemons.spawn(sys.executable, "-m", "tests.bench.delay", here, to, str(seconds))
        until(lambda: answers(here), f"the link to {to}")
        yield here


def answers(address: str) -> bool:
    """Whether somebody takes connections there."""
    try:
        _connect(address).close()
    except OSError:
        return False
    return True


def _serve(here: str, to: str, seconds: float) -> None:
    with _new(here) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(_parsed(here))
        listener.listen(64)
        while True:
            near, _ = listener.accept()
            far = _connect(to)
            begin = time.monotonic() + 2 * seconds  # a connection is not there before a round trip
            for source, sink in ((near, far), (far, near)):
                _start(source, sink, begin, seconds)


def _start(source: socket.socket, sink: socket.socket, begin: float, seconds: float) -> None:
    if source.family == socket.AF_INET:
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    on_the_way: queue.Queue[tuple[float, bytes]] = queue.Queue(_MOST_PIECES)
    threading.Thread(target=_take, args=(source, on_the_way, begin, seconds), daemon=True).start()
    threading.Thread(target=_give, args=(sink, on_the_way), daemon=True).start()


def _take(source: socket.socket, to: queue.Queue[tuple[float, bytes]], begin: float, seconds: float) -> None:
    piece = b"any"
    while piece:
        try:
            piece = source.recv(_PIECE)
        except OSError:  # whoever broke off has ended, in its own way
            piece = b""
        to.put((max(time.monotonic(), begin) + seconds, piece))


def _give(sink: socket.socket, pieces: queue.Queue[tuple[float, bytes]]) -> None:
    piece = b"any"
    while piece:
        due, piece = pieces.get()
        time.sleep(max(0, due - time.monotonic()))
        with contextlib.suppress(OSError):  # nobody listens any more: what still comes is lost, as on any link
            if piece:
                sink.sendall(piece)
            else:
                sink.shutdown(socket.SHUT_WR)


def _connect(address: str) -> socket.socket:
    connection = _new(address)
    connection.connect(_parsed(address))
    return connection


def _new(address: str) -> socket.socket:
    return socket.socket(socket.AF_UNIX if address.startswith("/") else socket.AF_INET)


def _parsed(address: str) -> str | tuple[str, int]:
    host, _, port = address.rpartition(":")
    return address if address.startswith("/") else (host, int(port))


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], float(sys.argv[3]))
