"""Watches over a running capture: that its job lives, and that scratch space does not run out."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from vbackup.api import Block, CaptureLost, Extent, NoSpace, NotFound, Range, SourceDisk, Unavailable, VBackupError
from vbackup_libvirt.job import BackupJob

INTERVAL = 0.5
"""Seconds from one look to the next: a guest that writes 1 GB/s uses half of the default reserve in that time."""

LEAVE = 10.0
"""Seconds that the last look may take when the watch is over."""


class Watch:
    """A thread that looks at a job and its scratch space, and ends the job before QEMU runs out of space."""

    def __init__(self, job: BackupJob) -> None:
        self._job = job
        self._error: VBackupError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch-{job.machine.name}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(LEAVE)  # a libvirtd that hangs must not hold us up; the thread is of no harm

    def explain(self, error: VBackupError) -> VBackupError:
        """Return why reading failed with ``error``: what the watch knows, else the error itself."""
        if self._error is None:
            self._look_patiently()
        return self._error or error

    def verify(self) -> None:
        """Raise what has gone wrong, if anything has; ask libvirt once more."""
        if self._error is None:
            self._look_patiently()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while self._error is None and not self._stop.wait(INTERVAL):
            try:
                self._look()
            except Unavailable:
                continue  # libvirtd is restarting; the job lives in QEMU
            except VBackupError as error:
                self._error = error

    def _look_patiently(self) -> None:
        try:
            self._job.machine.node.connection.patiently(self._look)
        except VBackupError as error:
            self._error = self._error or error

    def _look(self) -> None:
        machine, node = self._job.machine, self._job.machine.node
        free, reserve = node.host.free_bytes(str(self._job.scratch.parent)), node.options.scratch_reserve
        if free < reserve:
            error = NoSpace(
                f"{machine.name}: only {free} bytes were free in {node.scratch} during the backup, "
                f"{reserve} are the reserve; the backup was ended to spare the guest an I/O error",
                hint="free space there, set `scratch` to another directory, or back up when the guest writes less",
            )
            self._job.end()  # if libvirtd is away now, the next look tries again
            self._error = error
            return
        try:
            if self._job.is_active():
                return
            ended = "its backup job ended early" if machine.is_active else "it was switched off during the backup"
        except NotFound:
            ended = "it is gone"
        raise CaptureLost(f"{machine.name}: {ended}")


class WatchedDisk:
    """A `SourceDisk` that says why the capture was lost, not just that the connection broke."""

    def __init__(self, disk: SourceDisk, watch: Watch) -> None:
        self._disk = disk
        self._watch = watch
        self.key = disk.key
        self.size = disk.size
        self.full_reason = disk.full_reason

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """See `SourceDisk.extents`."""
        try:
            yield from self._disk.extents(full=full)
        except (CaptureLost, Unavailable) as error:
            raise self._watch.explain(error) from error

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        try:
            yield from self._disk.read(ranges)
        except (CaptureLost, Unavailable) as error:
            raise self._watch.explain(error) from error
