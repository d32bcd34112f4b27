"""An image that is being written: what is put is taken over by a thread of its own, in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from vbackup.api import Interrupted, Run, VBackupError
from vbackup_image.points.staging import sync
from vbackup_qemu.host import Host
from vbackup_qemu.nbd import NbdClient
from vbackup_qemu.server import serve

_UNDER_WAY = 16 << 20
"""Bytes that may wait to be written."""


class ImageWriter:
    """Writes runs into an image that is there, through qemu-nbd. Used by one thread.

    Whatever goes wrong with writing is raised by whichever method is called next.
    """

    def __init__(self, host: Host, path: Path, format: str, sockets: Path) -> None:  # noqa: A002
        self._host = host
        self._path = path
        self._format = format
        self._sockets = sockets
        self._changed = threading.Condition()
        self._runs: deque[Run] = deque()
        self._bytes = 0
        self._is_complete = False
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def put(self, run: Run) -> None:
        """Write ``run``, whose data must not change any more. Waits while too much is under way."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"write {self._path.name}")
            self._thread.start()
        size = len(run.data) if run.data is not None else 0
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._bytes < _UNDER_WAY)
            self._raise()
            self._runs.append(run)
            self._bytes += size
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until all is written and durable."""
        with self._changed:
            self._is_complete = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._raise()
        sync(self._path)

    def abandon(self) -> None:
        """Stop, whatever is under way."""
        with self._changed:
            self._failure = self._failure or Interrupted(f"the writing of {self._path} was given up")
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _raise(self) -> None:
        failure = self._failure
        if isinstance(failure, VBackupError):  # a new one: several threads may raise it
            raise type(failure)(failure.message, hint=failure.hint, transient=failure.transient) from failure
        if failure is not None:
            raise failure

    def _work(self) -> None:
        try:
            with (
                serve(
                    self._host, self._path, self._format, read_only=False, sockets=self._sockets, connections=1
                ) as socket,
                NbdClient(socket, contexts=(), label=str(self._path)) as client,
            ):
                client.write(self._taken(), zeroed=False)
        except BaseException as error:  # noqa: BLE001 - it is raised by whoever waits for this thread
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _taken(self) -> Iterator[Run]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._runs or self._is_complete or self._failure is not None)
                self._raise()
                if not self._runs:
                    return
                run = self._runs.popleft()
                self._bytes -= len(run.data) if run.data is not None else 0
                self._changed.notify_all()
            yield run
