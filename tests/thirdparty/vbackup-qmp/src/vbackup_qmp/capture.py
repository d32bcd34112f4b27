"""A capture: a moment of a machine, held open while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from vbackup.api import (
    Block,
    CaptureLost,
    Extent,
    MachineDescription,
    Marker,
    NoSpace,
    Range,
    SourceDisk,
    VBackupError,
)
from vbackup_qmp import fleece as fleeces
from vbackup_qmp.fleece import Fleece
from vbackup_qmp.monitor import converse
from vbackup_qmp.nbd import Export
from vbackup_qmp.session import Session
from vbackup_qmp.tracking import Tracked


@dataclass(frozen=True, slots=True)
class QmpDisk:
    """A `SourceDisk`."""

    key: str
    size: int
    full_reason: str | None
    _export: Export

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """See `SourceDisk.extents`."""
        return self._export.allocation() if full or self.full_reason else self._export.changed()

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `SourceDisk.read`."""
        return self._export.read(ranges)


class QmpCapture:
    """A `Capture`."""

    memory: SourceDisk | None = None
    files: Mapping[str, bytes] = {}

    def __init__(
        self,
        session: Session,
        fleece: Fleece,
        tracked: Sequence[Tracked],
        marker: Marker | None,
        time: datetime,
        notes: Sequence[str],
        *,
        quiesced: bool,
    ) -> None:
        self._session = session
        self._fleece = fleece
        self._gave_up = False
        self.machine: MachineDescription = session.inventory.description
        self.time = time
        self.quiesced = quiesced
        self.notes = notes
        self.marker = marker
        self.disks: Sequence[SourceDisk] = [self._disk(number, each) for number, each in enumerate(tracked)]

    def _disk(self, number: int, tracked: Tracked) -> QmpDisk:
        disk = tracked.disk
        bitmap = self._fleece.bitmap if tracked.old is not None else None
        label = f"{self.machine.name}/{disk.key}"
        export = Export(self._fleece.socket, self._fleece.name(number), label, disk.size, bitmap)
        return QmpDisk(disk.key, disk.size, tracked.full_reason, export)

    def check(self) -> None:
        """See `Capture.check`: QEMU's jobs have kept the moment since it was."""
        self.require_room()
        try:
            held = partial(fleeces.require_held, fleece=self._fleece, count=len(self.disks))
            converse(self._session.socket, self.machine.name, held)
        except CaptureLost as error:
            raise CaptureLost(f"{self.machine.name}: {error.message}") from error

    def require_room(self) -> None:
        """Raise `NoSpace` if that is what the capture was lost for."""
        if self._gave_up:
            hint = "free space there, or set `scratch` to another directory"
            raise NoSpace(f"{self.machine.name}: the guest wrote more than the scratch disk has room for", hint=hint)

    def give_up(self, undo: Callable[[], object]) -> None:
        """Sacrifice the capture for the guest: reads fail from now on."""
        self._gave_up = True
        try:
            undo()
        except VBackupError:
            return  # who holds the capture undoes it, too, and tells
