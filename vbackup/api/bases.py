"""Parts of the roles that are the same in most plugins: to inherit or to fill, and no plugin has to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from vbackup.api.errors import Unsupported
from vbackup.api.hypervisor import Marker, SourceDisk
from vbackup.api.machine import MachineDescription


class WithoutLocks:
    """The part of a `Transport` that is about locks, where whoever may write to the store may delete."""

    @property
    def can_lock(self) -> bool:
        """Never."""
        return False

    def lock(self, key: str, until: datetime) -> None:  # noqa: ARG002 - the role's signature
        """Raise `Unsupported`: there are no locks."""
        raise Unsupported(f"this store cannot keep object {key} from being deleted", hint="use a store with locks")


@dataclass(frozen=True, slots=True)
class OpenCapture:
    """A `Capture` whose parts are at hand. Its notes may still grow while it is copied."""

    machine: MachineDescription
    time: datetime
    quiesced: bool
    disks: Sequence[SourceDisk]
    files: Mapping[str, bytes]
    marker: Marker | None
    notes: Sequence[str]
    verify: Callable[[], None] = field(repr=False)
    """What `Capture.check` does."""
    memory: SourceDisk | None = None

    def check(self) -> None:
        """See `Capture.check`."""
        self.verify()
