"""The guards around the disks of hypervisors: what is read from them, and what is written to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from vbackup.api import Block, Extent, Range, Run, SinkDisk, SourceDisk
from vbackup.guards.answers import kind_of
from vbackup.guards.blame import Blame, Raised
from vbackup.guards.streams import Lent, as_asked, covering, fetched

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")  # as `vbackup.api.Key`


class GuardedSource:
    """A `SourceDisk` whose extents cover it and whose blocks are those that were asked for."""

    def __init__(self, inner: SourceDisk, blame: Blame) -> None:
        self._inner = inner
        self._blame = blame
        with blame.calling("a disk"):
            key: object = inner.key
            size: object = inner.size
        if type(key) is not str or not KEY.fullmatch(key):
            raise blame.error(f"a disk has the key {key!r:.80}, which is none")
        if type(size) is not int or size < 0:
            raise blame.error(f"disk {key} has a size of {size!r:.40}, which is no number of bytes")
        self.key = key
        self.size = size

    @property
    def full_reason(self) -> str | None:
        """See `SourceDisk.full_reason`."""
        with self._blame.calling("full_reason", self.key):
            reason: object = self._inner.full_reason
        if reason is not None and not isinstance(reason, str):
            raise self._blame.error(f"full_reason of disk {self.key} is {kind_of(reason)}, not a text or None")
        return reason

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """See `SourceDisk.extents`."""
        return covering(lambda: self._inner.extents(full=full), self.size, f"disk {self.key}", self._blame)

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        return as_asked(self._inner.read, ranges, f"disk {self.key}", self._blame)


class GuardedSink:
    """A `SinkDisk` that has taken all when it says so."""

    def __init__(self, inner: SinkDisk, key: str, blame: Blame) -> None:
        self._inner = inner
        self._key = key
        self._blame = blame

    def write(self, runs: Iterable[Run]) -> None:
        """See `SinkDisk.write`."""
        raised = Raised()
        with self._blame.calling(f"write of disk {self._key}", raised=raised) as call:
            lent = Lent(fetched(runs, call), raised)
            self._inner.write(lent)
        if raised.error is not None:
            raise raised.error  # it was swallowed
        if next(lent, None) is not None:
            raise self._blame.error(f"write of disk {self._key} returned before it had taken all of it")
