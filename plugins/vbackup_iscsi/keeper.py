"""The process that keeps a LUN attached: ``python -m vbackup_iscsi.keeper DIRECTORY``, started by the first user.

There is one for each LUN and host, in a mount namespace of its own. It attaches the LUN for the user that started it,
serves all others of this host, and detaches when the last of them is gone; a user is an open connection. All that it
makes is the kernel's to undo when it is killed: its mounts end with its namespace, the loop device with the mount, and
qemu-storage-daemon with it. What ``lock`` guards is free when all of them are gone.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vbackup.api import Busy, Interrupted, VBackupError
from vbackup_files.failures import told
from vbackup_iscsi import initiator, seat, volume
from vbackup_iscsi.filesystem import loop, mounted
from vbackup_iscsi.header import Device
from vbackup_iscsi.lease import Lease
from vbackup_iscsi.order import Attached, Order, receive_order, send_answer

SOCKET, STORE, LOCK, READY = "socket", "store", "lock", b"listening\n"
OTHERS = b"o"
"""Said to a user who leaves when others stay."""
_MOUNT = "mount"
_ORDER_SECONDS, _LOOK_SECONDS, _END_SECONDS = 10, 0.5, 30


class Keeper:
    """See the module."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._users: list[socket.socket] = []
        self._initiator: initiator.Initiator | None = None
        self._attached = Attached("", 0)

    def run(self, listener: socket.socket) -> None:
        """Serve the first user, and others, until none is left."""
        listener.settimeout(_ORDER_SECONDS)
        try:
            first, _ = listener.accept()
        except TimeoutError:
            return  # who started us is dead
        listener.settimeout(None)
        self._users = [first]
        failed: VBackupError | None = None
        with ExitStack() as undo:
            try:
                order = _order(first)
                if order is not None:
                    lease, endings = self._attach(order, undo)
                    send_answer(first, self._attached)
                    self._serve(listener, lease, endings)
            except VBackupError as error:
                failed = error
            finally:
                self._turn_away(listener)
        if failed is not None:
            with suppress(OSError):
                send_answer(first, failed)

    def _attach(self, order: Order, undo: ExitStack) -> tuple[Lease, Sequence[int]]:
        """Attach it; return our right to it, and `Initiator.endings`."""
        lock = undo.enter_context(self._locked(order))
        self._initiator = initiator.make(order, self._directory, lock)
        undo.callback(self._initiator.detach)
        path = self._initiator.attach()
        with told(f"use {order.place}"):
            device = Device(path)
            undo.callback(device.close)
            lease = Lease(device, seat.of(self._directory), order.timing, self._pause, self._cut, self._initiator.beat)
            undo.callback(lease.end)
            lease.watch()
            try:
                self._mount(order, device, lease, undo)
            except (OSError, VBackupError):
                lease.raise_if_lost(order.place)
                raise
        return lease, self._initiator.endings()

    def _mount(self, order: Order, device: Device, lease: Lease, undo: ExitStack) -> None:
        volume.examine(device, order)
        lease.claim(order.place)
        undo.callback(lease.release)
        mount = self._directory / _MOUNT
        mount.mkdir(0o700, exist_ok=True)
        undo.callback(_remove, mount)
        with ExitStack() as attached:
            path = attached.enter_context(loop(device.path))
            volume.format_if_asked(device, path, order)
            undo.enter_context(mounted(path, mount, lease.lose))
        mount.chmod(0o700)
        label = device.label()
        process = self._initiator.process if self._initiator is not None else 0
        self._attached = Attached(label.id if label is not None else "", process)
        self._point_to(Path(f"/proc/{os.getpid()}/root{mount}"))
        lease.raise_if_lost(order.place)

    def _serve(self, listener: socket.socket, lease: Lease, endings: Sequence[int]) -> None:
        """Return when nobody uses it, or when it is lost."""
        while not lease.lost:
            watched: list[socket.socket | int] = [listener, *endings, *self._users]
            ready, _, _ = select.select(watched, [], [], _LOOK_SECONDS)
            if listener in ready:
                self._welcome(listener)
            if any(ending in ready for ending in endings):
                lease.lose("its initiator ended")
            if self._initiator is not None and not self._initiator.is_connected():
                lease.lose("its connection was replaced: the target may have lost what it had not written")
            if not self._works():
                lease.lose("its file system failed")
            gone = [user for user in self._users if user in ready]
            if len(gone) == len(self._users):
                return  # they hear of it when all is undone, and we end
            for user in gone:
                self._users.remove(user)
                with suppress(OSError):
                    user.send(OTHERS)
                user.close()

    def _welcome(self, listener: socket.socket) -> None:
        user, _ = listener.accept()
        if _order(user) is not None:
            with suppress(OSError):
                send_answer(user, self._attached)
            self._users.append(user)

    def _works(self) -> bool:
        """Whether the file system has not been shut down; looks at nothing but memory."""
        try:
            (self._directory / _MOUNT).stat()
        except OSError:
            return False
        return True

    def _cut(self) -> None:
        """Called by any thread. Users hear of it before they meet the errors that follow."""
        for user in self._users:
            with suppress(OSError):
                user.shutdown(socket.SHUT_RDWR)
        if self._initiator is not None:
            self._initiator.kill()

    def _pause(self, seconds: float) -> None:
        """Wait while attaching, as long as somebody wants it."""
        if select.select(self._users, [], [], seconds)[0]:
            raise Interrupted("nobody wants the LUN any more")

    def _turn_away(self, listener: socket.socket) -> None:
        """From here on users are refused, and start another keeper, which waits for our end."""
        for name in (SOCKET, STORE):
            (self._directory / name).unlink(missing_ok=True)
        listener.close()

    def _point_to(self, store: Path) -> None:
        """Let a path that never changes lead to the files; it leads nowhere when they are gone."""
        new = self._directory / f"{STORE}.new"
        new.unlink(missing_ok=True)
        new.symlink_to(store)
        new.rename(self._directory / STORE)

    @contextmanager
    def _locked(self, order: Order) -> Iterator[int]:
        """Wait until all of an earlier keeper has ended. Our own programs inherit the descriptor."""
        lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.set_inheritable(lock, True)
        deadline = time.monotonic() + order.timing.lease + _END_SECONDS
        try:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise Busy(f"an earlier attachment of {order.place} does not end on this host") from error
                self._pause(0.1)
            yield lock
        finally:
            os.close(lock)


def _remove(directory: Path) -> None:
    with suppress(OSError):  # the next one makes it if it is not there
        directory.rmdir()


def _order(user: socket.socket) -> Order | None:
    user.settimeout(_ORDER_SECONDS)
    try:
        return receive_order(user)
    except TimeoutError:
        return None


def main() -> None:
    """Listen, say so on standard output, and serve."""
    # Those who use it may have to write when all of a service is told to end; we end when they have.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    directory = Path(sys.argv[1])
    with socket.socket(socket.AF_UNIX) as listener:
        (directory / SOCKET).unlink(missing_ok=True)
        listener.bind(str(directory / SOCKET))
        listener.listen(64)
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        Keeper(directory).run(listener)
    # Users wait for our end: the shortest way there, which closes their connections last.
    os._exit(0)


if __name__ == "__main__":
    main()
