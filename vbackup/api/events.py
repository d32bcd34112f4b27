"""Events of a job: notifications, metrics and dashboards hang here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class DiskProgress:
    """How far a disk is, in bytes counted at the source."""

    key: str
    size: int
    done: int
    """Bytes of the disk that are dealt with, in whatever way."""
    read: int
    unchanged: int
    zero: int
    duplicate: int


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What happens to one machine in a job."""

    job: str
    hypervisor: str
    machine: str


@dataclass(frozen=True, slots=True)
class JobStarted(JobEvent):
    """A machine's turn has come."""


@dataclass(frozen=True, slots=True)
class JobProgress(JobEvent):
    """A disk has moved on; sent a few times a second for each disk."""

    disk: DiskProgress


@dataclass(frozen=True, slots=True)
class JobFinished(JobEvent):
    """A machine is done: ``point`` is the restore point's id, or ``error`` says why there is none."""

    point: str = ""
    error: str = ""
    warnings: tuple[str, ...] = field(default=())
