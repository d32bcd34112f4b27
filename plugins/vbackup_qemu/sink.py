"""A disk that is being restored into an image or a block device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vbackup.api import NoSpace, PluginError, Run
from vbackup_qemu.host import Host
from vbackup_qemu.nbd import NbdClient
from vbackup_qemu.server import serve


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
        with (
            serve(self._host, self._path, self._format, read_only=False, sockets=self._sockets) as socket,
            NbdClient(socket, contexts=(), label=self._label) as client,
        ):
            if client.size < self._size:
                raise NoSpace(f"{self._label}: {self._path} has {client.size} bytes, {self._size} are needed")
            client.write(_complete(runs, self._size), zeroed=self._zeroed)
        # qemu-nbd has written out the last of its own when it ends, which the flush before could not cover.
        self._host.run(["sync", "--", str(self._path), str(self._path.parent)])
        self.is_complete = True


def _complete(runs: Iterable[Run], size: int) -> Iterator[Run]:
    expected = 0
    for run in runs:
        if run.offset != expected or run.length <= 0 or (run.data is not None and len(run.data) != run.length):
            raise PluginError(f"run {run.offset}+{run.length} does not continue at {expected}")
        expected += run.length
        yield run
    if expected != size:
        raise PluginError(f"runs end at {expected} of a disk of {size} bytes")
