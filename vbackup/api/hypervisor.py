"""The hypervisor role: where machines run, are captured and are put back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel

from vbackup.api.doctor import Finding
from vbackup.api.extents import Extent, Range
from vbackup.api.machine import MachineDescription

Buffer = bytes | bytearray | memoryview
"""Bytes as they travel. A receiver must not change it, nor keep it after returning, unless it says so."""

Marker = dict[str, Any]
"""A change marker: JSON of the hypervisor plugin's own making, stored on the restore point and handed back as is."""


class Quiesce(StrEnum):
    """Whether the guest's file systems are frozen at the moment of the capture."""

    YES = "yes"
    """Freeze, or fail the capture."""
    NO = "no"
    """Do not touch the guest; the capture is crash-consistent."""
    TRY = "try"
    """Freeze if the guest can, else go on and add a note."""


class Block(NamedTuple):
    """Bytes of a disk at an offset."""

    offset: int
    data: Buffer


class Run(NamedTuple):
    """A range to be written: ``data`` of ``length`` bytes, or None for zeros."""

    offset: int
    length: int
    data: Buffer | None


@dataclass(frozen=True, slots=True)
class MachineRef:
    """A machine as it is listed: its name (unique in its hypervisor), its stable identity and whether it is running."""

    name: str
    id: str
    running: bool
    folder: str = ""
    """Where the hypervisor keeps it for people: ``/DC0/vm/prod``, empty if it has no folders."""
    labels: frozenset[tuple[str, str]] = frozenset()
    """What people have marked it with, as (key, value): ``("tag", "backup/daily")``, ``("Owner", "web team")``."""


@dataclass(frozen=True, slots=True)
class HypervisorContext:
    """What the framework gives a hypervisor plugin."""

    alias: str
    """The name in the configuration, for messages."""
    state_dir: Path
    """A private directory (0700) that outlives the process: journals of what must be undone if we die."""


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """How to capture a machine."""

    owner: str
    """The repository's id (32 hex digits). Change markers belong to it; those of others must not be touched."""
    since: Marker | None = None
    """The marker of this machine's newest durable restore point in that repository, or None.
    Markers and leftovers of this owner that are not `since` and whose maker is dead may be removed."""
    quiesce: Quiesce = Quiesce.TRY
    exclude: frozenset[str] = frozenset()
    """Keys of disks to leave out, as the user wants it; those that are not there mean nothing."""
    memory: bool = False
    """Capture the memory of a running machine, too, of the same moment as its disks. A machine that is off has none."""
    is_stopped: Callable[[], bool] = lambda: False
    """Whether the run is to end: whoever waits for long before the capture is open asks, and raises `Interrupted`."""
    moment: Callable[[], None] | None = None
    """To be called once, when all that takes long is prepared and the moment of the capture is next: it returns when
    the other machines of a group are as far. Nothing that those could wait for may be held meanwhile. It may raise."""


class SourceDisk(Protocol):
    """One disk of a capture. Used by one thread at a time; different disks by different threads at once."""

    @property
    def key(self) -> str:
        """The disk's stable key."""

    @property
    def size(self) -> int:
        """Size in bytes at the moment of the capture."""

    @property
    def full_reason(self) -> str | None:
        """Why nothing is known of what changed, as a phrase for the user; None when `extents` can tell."""

    def extents(self, *, full: bool) -> Iterator[Extent]:
        """Yield what the disk holds: ascending, covering ``[0, size)``, lazily.

        With ``full``, or when `full_reason` is set, only data and zero; else unchanged is relative to the capture
        that made `CaptureRequest.since`. May be called again from the start.

        Raises: `CaptureLost`, `Unavailable`.
        """

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges (each at most 4 MiB) and yield one block for each, in the same order.

        Several requests should be in flight: ``ranges`` is consumed ahead of what is yielded. The blocks belong to
        the caller. Reads see the moment of the capture, wherever on the disk they are, changed or not.

        Raises: `CaptureLost`, `Unavailable`.
        """


class Capture(Protocol):
    """A consistent point of a machine, held open while it is copied."""

    @property
    def machine(self) -> MachineDescription:
        """The machine at that moment, with all its disks, captured or not."""

    @property
    def time(self) -> datetime:
        """The moment, UTC, by the clock of `vbackup.api.clock`: for a machine that was paused, since when it was."""

    @property
    def quiesced(self) -> bool:
        """Whether the guest's file systems were frozen at that moment."""

    @property
    def disks(self) -> Sequence[SourceDisk]:
        """The disks that were captured."""

    @property
    def memory(self) -> SourceDisk | None:
        """The machine's memory and device state, in whatever form the hypervisor can go on from; None without it.

        Its key is ``memory``, it is read in full, and it is restored only to a hypervisor of the same type.
        """

    @property
    def files(self) -> Mapping[str, bytes]:
        """Small things that belong to the machine beside its disks (``nvram``, ``tpm``), each below 64 MiB."""

    @property
    def marker(self) -> Marker | None:
        """What to hand back as `CaptureRequest.since` next time; None when the next capture must be a full one."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user must know: disks left out and why, a freeze that failed, a fallback."""

    def check(self) -> None:
        """Raise `CaptureLost` unless all that was read is sure to be of this capture. Called after the last read."""


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """How to put a machine back."""

    name: str | None = None
    """None: the same machine in its own place. Else a new machine of that name with an identity of its own."""
    disks: Mapping[str, Path] = field(default_factory=dict)
    """Not empty: write only these disks, to these files or block devices, and define no machine."""
    format: str | None = None
    """``raw`` or ``qcow2``; None keeps each disk's own format where it can be written, else qcow2."""
    overwrite: bool = False
    """Whether an existing machine (only while it is off), file or the content of a device may be replaced."""
    start: bool = False


@dataclass(frozen=True, slots=True)
class RestoreDisk:
    """A disk that the engine is about to write: its key, its size in bytes and its format as it was."""

    key: str
    size: int
    format: str
    is_memory: bool = False
    """It is no disk but what `Capture.memory` was: the machine goes on from it when it is started."""


class SinkDisk(Protocol):
    """One disk being written. Used by one thread at a time; different disks by different threads at once."""

    def write(self, runs: Iterable[Run]) -> None:
        """Write all of the disk: ``runs`` ascend and cover it exactly. Zeros stay unallocated where they can.

        Returns when everything is durable. Raises: `NoSpace`, `Unavailable`.
        """


class Restoration(Protocol):
    """A machine being put back. Leaving it without `finish` removes everything that it made."""

    @property
    def disks(self) -> Mapping[str, SinkDisk]:
        """Where to write, by disk key. Only the memory may be missing, with a note: then it is not restored."""

    @property
    def notes(self) -> Sequence[str]:
        """What cannot be put back as it was; all but what only `finish` sees is known before a byte is written."""

    def finish(self) -> str:
        """All disks are written: put them in place, define the machine (last) and start it if asked.

        Returns what there is now, as a phrase for the user.
        """


class Hypervisor(Protocol):
    """Where machines run.

    One instance per entry under ``hypervisors:``; its methods may be called from many threads at once, for
    different machines. Constructing one must not connect: `machines` is the first to do so.
    """

    name: ClassVar[str]
    """The ``type:`` in YAML."""
    options: ClassVar[type[BaseModel]]
    """The other keys of that entry."""
    writes_files: ClassVar[bool]
    """Whether `restore` with `RestoreRequest.disks` works with nothing else running."""

    def __init__(self, options: Any, context: HypervisorContext) -> None: ...

    def machines(self) -> list[MachineRef]:
        """List all machines. Raises: `Unavailable`, `AccessDenied`."""

    def capture(self, machine: str, request: CaptureRequest) -> AbstractContextManager[Capture]:
        """Hold a consistent point of a machine (by name) open for the time of the context.

        Whatever is created is journaled before, and undone on every way out. A marker that was made here is only
        *pending*: it counts once `commit` is called, and is removed by a later capture if it never is.

        Raises: `NotFound`, `Busy`, `Unavailable`, `GuestError`, `NoSpace`, `Unsupported`.
        """

    def commit(self, machine: str, owner: str, marker: Marker) -> None:
        """The restore point that holds ``marker`` is durable: it is now the only one needed for this owner."""

    def sweep(self, owner: str) -> list[str]:
        """Undo what dead runs of this owner left behind (jobs, scratch files); one phrase for each thing undone.

        Must not touch what a living process holds, nor markers: those are swept by `capture`, which knows which
        one counts.
        """

    def restore(
        self,
        machine: MachineDescription,
        disks: Sequence[RestoreDisk],
        files: Mapping[str, bytes],
        request: RestoreRequest,
    ) -> AbstractContextManager[Restoration]:
        """Prepare to write ``disks`` of ``machine``. Everything that can be refused is refused here, before a byte.

        Raises: `AlreadyExists`, `NotFound`, `NoSpace`, `Busy`, `Unsupported`, `AccessDenied`.
        """

    def answers(self, machine: str) -> bool:
        """Whether the agent in the guest of a machine (by name) answers: its system is up.

        Raises: `NotFound`, `Unavailable`; `Unsupported` when the machine has no agent to ask.
        """

    def check(self) -> Sequence[Finding]:
        """Look at what this hypervisor needs on this machine, for ``vbackup doctor``."""

    def close(self) -> None:
        """Let go of connections."""
