"""What a way to read a frozen disk must be able to do; see `choose` for which one is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from vbackup.api import Block, Extent, Range
from vbackup_vsphere.disks import VmDisk

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


@dataclass(frozen=True, slots=True)
class Frozen:
    """A snapshot whose disks are to be read."""

    session: Session
    machine: str
    """The machine's name, for messages."""
    vm: str
    """Its managed object id, such as ``vm-57``."""
    snapshot: str
    """That of the snapshot, such as ``snapshot-71``."""
    datacenter: str
    """Inventory path of its datacenter without the leading slash, such as ``DC0``; ``ha-datacenter`` on ESXi."""


class DiskReader(Protocol):
    """Reads one frozen disk. Used by one thread."""

    is_sequential: bool
    """It can only go through the whole disk, once for each `read`, whatever is asked for."""

    def extents(self) -> Iterator[Extent] | None:
        """Yield where the disk has data and where zeros, covering it; None when this way cannot tell."""

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `vbackup.api.SourceDisk.read`. A sequential one needs ascending ranges.

        Raises: `CaptureLost`, `Unavailable`, `Corrupt`.
        """


class Way(Protocol):
    """A way to read disks."""

    name: ClassVar[str]
    """As in the option ``read``."""

    def why_not(self, frozen: Frozen, disk: VmDisk) -> str | None:
        """Return why this disk cannot be read this way, as a phrase; None when it can, as far as can be told."""

    def open(self, frozen: Frozen, disk: VmDisk) -> AbstractContextManager[DiskReader]:
        """Open a disk. What was made for it (leases, processes) is gone when the context ends.

        Raises: `Unsupported` when it turns out that it cannot be read this way: then the next one is tried.
        """
