"""The user's end of an attachment: finding the keeper of a LUN, or starting it."""

from __future__ import annotations

import atexit
import fcntl
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from vbackup.api import AccessDenied, Busy, Unavailable, Unsupported
from vbackup_files.failures import told
from vbackup_iscsi.keeper import OTHERS, READY, SOCKET, STORE
from vbackup_iscsi.order import Attached, Order, receive_answer, send_order
from vbackup_iscsi.programs import missing
from vbackup_iscsi.sockets import sockets

_START_SECONDS = 60
_ATTEMPTS = 10
_CREDENTIALS = struct.Struct("3i")
"""struct ucred: process, user and group; see unix(7)."""
_INHERITED = ("PYTHONPATH", "LD_LIBRARY_PATH")
_SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


class Attachment:
    """A LUN that is attached as long as this, or another's, is not closed."""

    def __init__(self, directory: Path, order: Order) -> None:
        """Attach it, or join those who have. Raises: `AccessDenied`, `Busy`, `Unavailable`, `Unsupported`."""
        if os.geteuid() != 0:
            raise AccessDenied(f"only root can attach {order.place}", hint="run vbackup as root")
        self._order = order
        self._directory = directory
        with told(f"attach {order.place}"):
            directory.mkdir(0o700, parents=True, exist_ok=True)
            self._connection, self._keeper, self._attached = self._attach()
        self._sockets = sockets(self._attached.initiator)
        atexit.register(self.close)  # without it all is undone as well, but a moment after our end

    @property
    def root(self) -> Path:
        """Where its files are."""
        return self._directory / STORE

    @property
    def store(self) -> str:
        """The id of the store on it."""
        return self._attached.store

    def is_alive(self) -> bool:
        """Whether it is still attached, over the connection that it had at first: see `sockets`.

        An initiator whose sockets cannot be seen does not count: nobody could say that they are the same.
        """
        initiator = self._attached.initiator
        is_same = not initiator or (bool(self._sockets) and sockets(initiator) == self._sockets)
        return is_same and not select.select([self._connection], [], [], 0)[0]

    def close(self) -> None:
        """Leave it. The last one who does waits until everything is undone."""
        atexit.unregister(self.close)
        _leave(self._connection, self._keeper, self._patience)

    def _attach(self) -> tuple[socket.socket, int, Attached]:
        for _ in range(_ATTEMPTS):
            try:
                connection, keeper, is_new = self._met()
            except ProcessLookupError:
                continue  # it has just ended
            try:
                send_order(connection, self._order)
                attached = receive_answer(connection)
                if attached is not None:
                    return connection, keeper, attached
            except (BrokenPipeError, ConnectionResetError):
                pass
            except TimeoutError as error:
                connection.close()
                os.close(keeper)
                raise Busy(f"the keeper of {self._order.place} does not answer", hint="is it stopped?") from error
            except BaseException:
                _leave(connection, keeper, self._patience)
                raise
            _leave(connection, keeper, self._patience)  # it was about to end
            if is_new:
                raise Unavailable(f"cannot attach {self._order.place}: the keeper ended: {self._last_words()}")
        raise Unavailable(f"{self._order.place} is attached and detached all the time by others of this host")

    def _met(self) -> tuple[socket.socket, int, bool]:
        """Connect to the keeper; return also a pidfd of it, and whether it had to be started."""
        connection, is_new = socket.socket(socket.AF_UNIX), False
        try:
            with self._starting():
                try:
                    connection.connect(str(self._directory / SOCKET))
                except (FileNotFoundError, ConnectionRefusedError):
                    self._start()
                    connection.connect(str(self._directory / SOCKET))
                    is_new = True
            connection.settimeout(self._patience)
            return connection, os.pidfd_open(_peer(connection)), is_new
        except BaseException:
            connection.close()
            raise

    def _start(self) -> None:
        """Start it in a session and a mount namespace of its own; it is not our child, for it may outlive us."""
        for program in ("setsid", "unshare"):
            if shutil.which(program) is None:
                raise missing(program)
        command = ["setsid", "--fork", "unshare", "--mount", "--propagation", "slave"]
        command += [sys.executable, "-P", "-m", "vbackup_iscsi.keeper", str(self._directory)]
        # Ours may hold secrets, and it lives longer than we do.
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}"}
        log = os.open(self._directory / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            done = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/", env=environment
            )
        finally:
            os.close(log)
        with done:
            said = cast("IO[bytes]", done.stdout)
            ready = select.select([said], [], [], _START_SECONDS)[0] and said.read(len(READY))
        if ready != READY:
            raise Unsupported(f"the keeper of {self._order.place} does not start: {self._last_words()}")

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """One starts it at a time."""
        descriptor = os.open(self._directory / "start", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + _START_SECONDS
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise Busy(f"another process is about to attach {self._order.place}") from error
                    time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)

    @property
    def _patience(self) -> float:
        """Seconds after which a keeper that works must have come to an end with whatever it does."""
        timing = self._order.timing
        return 2 * timing.lease + timing.takeover + timing.settle + _START_SECONDS

    def _last_words(self) -> str:
        lines = (self._directory / "log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _peer(connection: socket.socket) -> int:
    pid, _, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid)


def _leave(connection: socket.socket, keeper: int, patience: float) -> None:
    """Take leave, and wait for the keeper's end unless it says that it has other users."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        connection.settimeout(patience)
        if connection.recv(1) != OTHERS:
            select.select([keeper], [], [], patience)
    connection.close()
    os.close(keeper)
