"""A capture that is held open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from vbackup.api import MachineDescription, Marker, SourceDisk


@dataclass(frozen=True, slots=True)
class OpenCapture:
    """A `Capture`. Its notes may still grow while it is copied."""

    machine: MachineDescription
    time: datetime
    quiesced: bool
    disks: Sequence[SourceDisk]
    files: dict[str, bytes]
    marker: Marker | None
    notes: Sequence[str]
    verify: Callable[[], None] = field(repr=False)
    memory: SourceDisk | None = None

    def check(self) -> None:
        """See `Capture.check`."""
        self.verify()
