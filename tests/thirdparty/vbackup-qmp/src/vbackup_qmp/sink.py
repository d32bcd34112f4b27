"""A disk that is being restored: into a new file, or onto a block device."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import NoSpace, PluginError, Run, Unavailable
from vbackup_qmp.places import Place
from vbackup_qmp.programs import qemu_img

_ZEROS = bytes(1 << 20)


class ImageSink:
    """A `SinkDisk`. ``temporary`` is the file to be made, ``raw`` one that is needed meanwhile."""

    def __init__(self, place: Place, temporary: Path, raw: Path) -> None:
        self._place = place
        self._temporary = temporary
        self._raw = raw if place.format != "raw" else temporary
        self.is_complete = False

    def write(self, runs: Iterable[Run]) -> None:
        """See `SinkDisk.write`."""
        place = self._place
        with translated(f"writing {place.path}"):
            if place.is_device:
                with opened(place.path, os.O_WRONLY | os.O_EXCL) as device:
                    self._fill(device, runs, is_new=False)
            else:
                with opened(self._raw, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
                    os.ftruncate(file, place.disk.size)
                    self._fill(file, runs, is_new=True)
                if self._raw != self._temporary:
                    self._convert()
        self.is_complete = True

    def _fill(self, descriptor: int, runs: Iterable[Run], *, is_new: bool) -> None:
        end = 0
        for offset, length, data in runs:
            if offset != end:
                raise PluginError(f"disk {self._place.disk.key}: a run at {offset} does not continue at {end}")
            end += length
            if data is not None:
                _write(descriptor, memoryview(data), offset)
            elif not is_new:
                for at in range(offset, end, len(_ZEROS)):
                    _write(descriptor, memoryview(_ZEROS)[: end - at], at)
        if end != self._place.disk.size:
            raise PluginError(f"disk {self._place.disk.key}: the runs end at {end}")
        os.fsync(descriptor)

    def _convert(self) -> None:
        qemu_img("convert", "-q", "-f", "raw", "-O", self._place.format, self._raw, self._temporary)
        self._raw.unlink()
        with opened(self._temporary, os.O_RDONLY) as file:
            os.fsync(file)


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Open a file. Raises: `OSError`, also as it is closed: some file systems tell only then that there is no room."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise our errors for the system's, while ``what`` is being done."""
    try:
        yield
    except OSError as error:
        kind = NoSpace if error.errno in {errno.ENOSPC, errno.EDQUOT} else Unavailable
        raise kind(f"{what}: {error.strerror}", transient=False) from error
