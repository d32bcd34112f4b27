"""A disk of a capture: what changed by vSphere's tracking, bytes by one of the ways to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from vbackup.api import Block, CaptureLost, Extent, Kind, NotFound, Range, VBackupError
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.readers.base import DiskReader
from vbackup_vsphere.tracking import Areas


class VmSource:
    """A `SourceDisk`.

    ``changed`` is what changed, or why that is not known; ``in_use`` asks vSphere which areas are in use at all, and
    gives None when it cannot tell; ``begin`` waits for the machine's turn to be copied; ``verify`` raises
    `CaptureLost` when the snapshot is gone.
    """

    def __init__(
        self,
        disk: VmDisk,
        reader: DiskReader,
        changed: Areas | str,
        in_use: Callable[[], Areas | None],
        begin: Callable[[], None],
        verify: Callable[[], None],
    ) -> None:
        self.key = disk.key
        self.size = disk.size
        self.full_reason = changed if isinstance(changed, str) else None
        self._reader = reader
        self._changed = changed
        self._in_use = in_use
        self._begin = begin
        self._verify = verify

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """See `SourceDisk.extents`."""
        self._begin()
        if not full and isinstance(self._changed, Areas):
            return self._changed.extents(Kind.UNCHANGED)
        return self._allocation()

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        self._begin()
        with self._explained():
            yield from self._reader.read(ranges)

    def _allocation(self) -> Iterator[Extent]:
        with self._explained():
            known = self._reader.extents()
            if known is not None:
                yield from known
                return
            areas = self._in_use()
        if areas is not None:
            yield from areas.extents(Kind.ZERO)
        elif self.size:
            yield Extent(0, self.size, Kind.DATA)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever a reader fails with: when the snapshot is gone, that is why."""
        try:
            yield
        except NotFound as error:
            self._verify()
            raise CaptureLost(f"disk {self.key} is gone: {error.message}") from error
        except CaptureLost:
            raise
        except VBackupError:
            self._verify()
            raise
