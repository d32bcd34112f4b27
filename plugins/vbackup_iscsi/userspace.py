"""The initiator of qemu-storage-daemon, over NBD, and nbdfuse: the LUN as a file.

Not qemu-storage-daemon's own FUSE export: up to QEMU 10.1 it reads a request into the buffer of one that is still being
written, and so mixes up what is written at the same time. See the decision record in the README.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from vbackup.api import AccessDenied, Unavailable, Unsupported, VBackupError
from vbackup_iscsi import guard
from vbackup_iscsi.order import Order
from vbackup_iscsi.programs import missing
from vbackup_iscsi.sockets import sockets

INITIATOR, FUSE = "qemu-storage-daemon", "nbdfuse"
_MOUNT_SECONDS, _END_SECONDS = 20, 10
_PR_SET_PDEATHSIG, _PR_SET_IO_FLUSHER = 1, 57
_APART = ("unshare", "--mount", "--propagation", "slave")
"""In a mount namespace of their own. The last process of the keeper's namespace unmounts the file system as it ends:
one that serves it would wait for itself, and for ever. So that one must be neither of them, nor the keeper, which they
would outlive with what it still writes: see `vbackup_iscsi.guard`."""
_libc = ctypes.CDLL(None)  # before fork, where nothing may be loaded


class Userspace:
    """Two programs. They die with us, and can be killed at any time by any thread."""

    def __init__(self, order: Order, directory: Path, lock: int) -> None:
        """``lock`` is a descriptor that they hold open until they have ended."""
        self._order = order
        self._lun = directory / "lun"  # a mount point, in the namespace of nbdfuse
        self._socket = directory / "nbd"
        self._lock = lock
        self._monitor, self._theirs = socket.socketpair()
        self._end, self._alive = os.pipe()
        self._last: subprocess.Popen[bytes] | None = None
        self._sockets: frozenset[str] = frozenset()
        self._running: list[subprocess.Popen[bytes]] = []
        self._endings: list[int] = []

    def attach(self) -> Path:
        """Log in, and return the file that is the LUN. Raises: `AccessDenied`, `Unavailable`, `Unsupported`."""
        self._socket.unlink(missing_ok=True)
        self._lun.unlink(missing_ok=True)
        self._lun.touch(0o600)
        with tempfile.TemporaryFile() as said:
            self._log_in(said)
            lun = self._mount(said)
        self._guard()
        self._sockets = sockets(self.process)
        return lun

    def endings(self) -> Sequence[int]:
        """Return the pidfds of both: see `Initiator.endings`."""
        return self._endings

    @property
    def process(self) -> int:
        """qemu-storage-daemon."""
        return self._running[0].pid

    def is_connected(self) -> bool:
        """See `vbackup_iscsi.sockets`."""
        return sockets(self.process) == self._sockets

    def beat(self) -> None:
        """Tell the guard that we are well."""
        with suppress(BlockingIOError):  # it stands still itself, and has enough to read
            os.write(self._alive, b".")

    def kill(self) -> None:
        """Let nothing of ours reach the LUN from now on. Does not wait."""
        for process in self._running:
            process.kill()

    def detach(self) -> None:
        """Log out, and wait until both have ended."""
        for process in self._running[1:]:  # nbdfuse; nothing of ours has the file open
            process.kill()
            process.wait()
        with suppress(OSError):
            self._monitor.sendall(b'{"execute": "qmp_capabilities"}{"execute": "quit"}')
        for process in self._running:
            _wait(process)
        for descriptor in (*self._endings, self._end, self._alive):
            os.close(descriptor)
        if self._last is not None:
            self._last.wait()
        self._monitor.close()
        self._theirs.close()
        for path in (self._socket, self._lun):
            path.unlink(missing_ok=True)

    def _guard(self) -> None:
        """Start the watch over us; see `vbackup_iscsi.guard`."""
        os.set_blocking(self._alive, False)
        limit = str(self._order.timing.lease)
        programs = list(self._endings)
        self._last = subprocess.Popen(
            [sys.executable, "-IS", guard.__file__, limit, str(self._lun.parent), *map(str, programs)],
            stdin=self._end,
            stdout=subprocess.DEVNULL,
            pass_fds=(self._lock, *programs),
            preexec_fn=_hold_signals,  # noqa: PLW1509 - as below
            start_new_session=True,
        )
        self._endings.append(os.pidfd_open(self._last.pid))

    def _log_in(self, said: IO[bytes]) -> None:
        secret = _pipe_with(self._order.password)
        try:
            self._start(self._initiator(secret), said, secret, self._theirs.fileno())
        finally:
            os.close(secret)
            self._theirs.close()
        limit = self._order.timing.connect
        self._monitor.settimeout(limit)
        try:
            greeting = self._monitor.recv(4096)  # it comes when all that it was told to do is done
        except TimeoutError as error:
            self.kill()
            hint = "is the target up and reachable?"
            raise Unavailable(f"{self._order.place} did not answer within {limit:.0f} s", hint=hint) from error
        if not greeting:
            said.seek(0)
            raise _failure(self._order, said.read().decode(errors="replace"))

    def _mount(self, said: IO[bytes]) -> Path:
        begin = said.seek(0, os.SEEK_END)
        process = self._start([FUSE, str(self._lun), f"nbd+unix:///?socket={self._socket}"], said)
        deadline = time.monotonic() + _MOUNT_SECONDS
        lun = Path(f"/proc/{process.pid}/root{self._lun}")
        while not os.path.ismount(lun):
            if process.poll() is not None or time.monotonic() > deadline:
                said.seek(begin)
                reason = " ".join(said.read().decode(errors="replace").split()) or "it does not answer"
                raise Unsupported(
                    f"{FUSE} cannot make a file of {self._order.place}: {reason}", hint="is /dev/fuse there?"
                )
            time.sleep(0.01)
        return lun

    def _start(self, command: list[str], said: IO[bytes], *descriptors: int) -> subprocess.Popen[bytes]:
        us = os.getpid()

        def as_child() -> None:
            # They must not outlive us, who would have to stop them; must not wait for memory that is freed by writing
            # to them; and must not end when systemd ends all of a service, before those who write have ended.
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            _libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)
            _hold_signals()
            if os.getppid() != us:
                os._exit(1)

        if shutil.which(command[0]) is None:
            raise missing(command[0])
        process = subprocess.Popen(
            [*_APART, *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            pass_fds=(self._lock, self._alive, *descriptors),
            preexec_fn=as_child,  # noqa: PLW1509 - the watch has not begun: we have one thread
            start_new_session=True,
            # What a connection has sent lives on in the kernel after its process: not for long.
            env=os.environ | {"LIBISCSI_TCP_USER_TIMEOUT": str(int(self._order.timing.unacknowledged * 1000))},
        )
        self._running.append(process)
        self._endings.append(os.pidfd_open(process.pid))
        return process

    def _initiator(self, secret: int) -> list[str]:
        drive = {
            "driver": "iscsi",
            "node-name": "lun",
            "transport": "tcp",
            "portal": self._order.portal,
            "target": self._order.target,
            "lun": self._order.lun,
            "initiator-name": self._order.initiator,
        }
        if self._order.user:
            drive |= {"user": self._order.user, "password-secret": "chap"}
        server = {"addr": {"type": "unix", "path": str(self._socket)}, "max-connections": 16}
        export = {"type": "nbd", "id": "lun", "node-name": "lun", "name": "", "writable": True}
        return [
            INITIATOR,
            *("--object", f"secret,id=chap,file=/dev/fd/{secret}"),
            *("--blockdev", json.dumps(drive)),
            *("--nbd-server", json.dumps(server)),
            *("--export", json.dumps(export)),
            *("--chardev", f"socket,id=monitor,fd={self._theirs.fileno()}"),
            *("--monitor", "chardev=monitor"),
        ]


def _hold_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pipe_with(secret: str) -> int:
    """Return the reading end of a pipe with ``secret`` in it: it is in no file and on no command line."""
    reading, writing = os.pipe()
    try:
        os.write(writing, secret.encode())  # a CHAP secret is far shorter than a pipe
    finally:
        os.close(writing)
    return reading


_WRONG = "compare portal, target, lun and chap with what the target is set up for"


def _failure(order: Order, said: str) -> VBackupError:
    reason = " ".join(said.rpartition("iSCSI: ")[2].split()) or f"{INITIATOR} ended without a word"
    message = f"cannot attach {order.place}: {reason}"
    if "Authentication failure" in said or "Authorization failure" in said:
        return AccessDenied(message, hint="check chap, and that the target admits our initiator name")
    if "Target not found" in said or "LOGICAL_UNIT_NOT_SUPPORTED" in said:
        return Unavailable(message, hint=_WRONG, transient=False)
    if "Unknown driver" in said or "Unable to open" in said:
        return Unsupported(message, hint="is qemu-block-extra installed?")
    return Unavailable(message, hint="is the target up and reachable?")
