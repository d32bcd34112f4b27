"""A disk that is being restored into an image or a block device.

A server writes it, as that holds locks, takes devices and is on other hosts, too; but a new file on this machine is
just bytes that nobody else knows of.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vbackup.api import NoSpace, PluginError, Run
from vbackup_qemu import qcow2file, rawfile
from vbackup_qemu.host import Host, LocalHost, translated
from vbackup_qemu.nbd import NbdClient
from vbackup_qemu.server import serve

_WRITTEN_OUT = 32 << 20
"""Bytes of data after which the kernel is told to write them to the disk."""


class ImageSink:
    """A `SinkDisk` into an image that is there already: see `vbackup_qemu.image.create`.

    ``size`` is the disk's, in bytes; a block device may be larger, and keeps what is beyond. ``zeroed`` says that the
    image is new and reads as zeros. ``sockets`` is a private directory on ``host``.
    """

    def __init__(
        self,
        host: Host,
        path: Path,
        format: str,  # noqa: A002
        size: int,
        *,
        zeroed: bool,
        sockets: Path,
        label: str,
    ) -> None:
        self._host = host
        self._path = path
        self._format = format
        self._size = size
        self._zeroed = zeroed
        self._sockets = sockets
        self._label = label
        self.is_complete = False

    def write(self, runs: Iterable[Run]) -> None:
        """See `SinkDisk.write`."""
        runs = _complete(runs, self._size)
        if self._zeroed and isinstance(self._host, LocalHost) and self._format in {"raw", "qcow2"}:
            runs = _written_out(runs, self._path)
            if self._format == "raw":
                rawfile.write(self._path, runs, self._label)
            else:
                qcow2file.write(self._path, self._size, runs, self._label)
        else:
            self._serve(runs)
        # Also what qemu-nbd has written out of its own when it ended, which its flush before could not cover.
        self._host.run(["sync", "--", str(self._path), str(self._path.parent)])
        self.is_complete = True

    def _serve(self, runs: Iterable[Run]) -> None:
        with (
            serve(self._host, self._path, self._format, read_only=False, sockets=self._sockets) as socket,
            NbdClient(socket, contexts=(), label=self._label) as client,
        ):
            if client.size < self._size:
                raise NoSpace(f"{self._label}: {self._path} has {client.size} bytes, {self._size} are needed")
            client.write(runs, zeroed=self._zeroed)


def _complete(runs: Iterable[Run], size: int) -> Iterator[Run]:
    expected = 0
    for run in runs:
        if run.offset != expected or run.length <= 0 or (run.data is not None and len(run.data) != run.length):
            raise PluginError(f"run {run.offset}+{run.length} does not continue at {expected}")
        expected += run.length
        yield run
    if expected != size:
        raise PluginError(f"runs end at {expected} of a disk of {size} bytes")


def _written_out(runs: Iterable[Run], path: Path) -> Iterator[Run]:
    """Have data written to the disk while the next is on its way: at the end little is left to wait for."""
    with rawfile.opened(path, os.O_RDONLY, f"writing out {path}") as descriptor:
        waiting = 0
        for run in runs:
            yield run
            waiting += run.length if run.data is not None else 0
            if waiting >= _WRITTEN_OUT:
                waiting = 0
                with translated(f"writing out {path}"):
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # begins to write what is dirty
