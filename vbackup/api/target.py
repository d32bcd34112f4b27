"""The target role: the form in which restore points are kept on a transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from vbackup.api.codec import Codec
from vbackup.api.extents import Extent, Range
from vbackup.api.hypervisor import Block, Buffer, Marker
from vbackup.api.machine import Description, Key, MachineDescription, Name
from vbackup.api.transport import Transport


class PointDisk(Description):
    """One disk of a restore point."""

    key: Key
    size: int = Field(ge=0, description="bytes")
    format: str = Field(default="raw", max_length=32)
    content: dict[str, Any] = Field(description="how the target finds the bytes; its own business")
    full_reason: str | None = Field(default=None, description="why the whole disk was read; None: only what changed")
    read: int = Field(default=0, ge=0, description="bytes read from the machine")
    changed: int = Field(default=0, ge=0, description="bytes that differ from the machine's point before")
    stored: int = Field(default=0, ge=0, description="bytes that the store grew by")
    samples: tuple[int, ...] = Field(default=(), max_length=64, description="offsets of blocks written last: probes")


class Point(Description):
    """A restore point: the committed record of one capture."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    machine: Name
    hypervisor: str = Field(max_length=255, description="its name in the configuration that made the point")
    hypervisor_type: str = Field(max_length=64)
    time: AwareDatetime = Field(description="the moment of the capture, UTC")
    sequence: int = Field(default=0, ge=0, description="counts a machine's points, whatever its clock says")
    seconds: float = Field(default=0, ge=0, description="how long the run took")
    description: MachineDescription
    disks: tuple[PointDisk, ...]
    files: dict[Key, dict[str, Any]] = Field(
        default_factory=dict, description="nvram, tpm ...: the target's own business"
    )
    quiesced: bool = False
    marker: Marker | None = None
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _keys_are_unique(self) -> Self:
        if len({disk.key for disk in self.disks}) != len(self.disks):
            raise ValueError("two disks have one key")
        return self

    @property
    def read(self) -> int:
        """Bytes read from the machine."""
        return sum(disk.read for disk in self.disks)

    @property
    def changed(self) -> int:
        """Bytes that differ from the machine's point before."""
        return sum(disk.changed for disk in self.disks)

    @property
    def stored(self) -> int:
        """Bytes that the store grew by."""
        return sum(disk.stored for disk in self.disks)


@dataclass(frozen=True, slots=True)
class Damage:
    """What cannot be read back: which disk (or file) of which point, where, and why."""

    point: str
    machine: str
    disk: str
    offset: int
    length: int
    reason: str


@dataclass(frozen=True, slots=True)
class TargetContext:
    """What the framework gives a target plugin."""

    alias: str
    transport: Transport
    codecs: Sequence[Codec]
    """Those of the configuration, in the order of encoding."""
    codec: Callable[[str], Codec]
    """Any registered codec by name, for what was written with others. Raises `NotFound`."""
    secret: Callable[[], bytes]
    """Resolves the configured key when it is needed. Raises `ConfigError`, `NotFound`."""
    cache_dir: Path
    """A private directory that may be deleted at any time."""


@dataclass(frozen=True, slots=True)
class DiskCounts:
    """What writing a disk came to, in bytes; see `PointDisk`."""

    changed: int
    stored: int
    zero: int
    duplicate: int
    samples: tuple[int, ...] = ()
    """Offsets of a few blocks that changed, chosen evenly; 64 at the most."""


class DiskWriter(Protocol):
    """Takes one disk of one point, from one thread, in ascending order, in whole blocks of `Writer.block_size`."""

    def write(self, offset: int, data: Buffer) -> None:
        """Take data (it belongs to the target from now on). Waits while too much is under way."""

    def zero(self, offset: int, length: int) -> None:
        """Take zeros."""

    def unchanged(self, offset: int, length: int) -> None:
        """Take what the base has there."""

    def same(self, offset: int, data: Buffer) -> bool:
        """Whether the base has just these bytes at ``offset`` (one block); False when it has none there."""

    def last_data(self, offset: int, length: int) -> int | None:
        """Offset of the last block of a range that is not zeros in the base; None when there is none."""

    def finish(self) -> tuple[dict[str, Any], DiskCounts]:
        """All was given: return `PointDisk.content` and the counts."""

    def progress(self) -> DiskCounts:
        """Return the counts so far; from any thread."""


class Writer(Protocol):
    """Takes the points of one run, of many machines at once; methods may be called from many threads."""

    @property
    def block_size(self) -> int:
        """What `DiskWriter` calls are aligned to, in bytes."""

    def check(self) -> None:
        """Raise what makes it impossible to commit any more, if anything does: then no guest need be disturbed."""

    def base_problem(self, base: PointDisk) -> str | None:
        """Why nothing can be built on ``base``, as a phrase; None if it is whole. Cheap while the store is healthy."""

    def disk(self, size: int, base: PointDisk | None) -> DiskWriter:
        """Begin a disk of ``size`` bytes; ``base`` is the same disk in the machine's point before, if any.

        What a writer raises as `Corrupt` is about the base: without one it cannot happen.
        """

    def file(self, data: bytes) -> dict[str, Any]:
        """Keep a small file; the result goes to `Point.files`."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user must know of the store: things missing or damaged that this run went around or healed."""

    def commit(self, point: Point) -> None:
        """Make ``point`` durable, after everything it needs. It exists for others from here on, not before."""


class Target(Protocol):
    """Keeps restore points. Methods may be called from many threads at once.

    Constructing one does not touch the store.
    """

    name: ClassVar[str]
    """The ``type:`` in YAML."""
    options: ClassVar[type[BaseModel]]
    """The other keys of that entry, beside ``transport``, ``codecs`` and ``key``."""

    def __init__(self, options: Any, context: TargetContext) -> None: ...

    @property
    def id(self) -> str:
        """32 hex digits that tell this target from all others. Raises `NotFound` if it was never initialised."""

    def init(self) -> None:
        """Make a new, empty target. Raises: `AlreadyExists`."""

    def writer(self) -> AbstractContextManager[Writer]:
        """Take points for the time of the context; leaving it on an error loses only what was not committed."""

    def points(self) -> list[Point]:
        """All points that can be read, oldest first; for the others see `damaged_points`."""

    def damaged_points(self) -> list[Damage]:
        """Points that are there but cannot be read: `points` leaves them out."""

    def extents(self, point: Point, disk: str) -> Iterator[Extent]:
        """What a disk of a point holds, as data and zero."""

    def read(self, point: Point, disk: str, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges (each at most 4 MiB) in order, several under way. Every byte is authenticated and hashed.

        Raises: `Corrupt` naming the object, the disk and the range; `NotFound`, `Unavailable`.
        """

    def file(self, point: Point, name: str) -> bytes:
        """Read a small file of a point."""

    def verify(self, points: Sequence[Point], progress: Callable[[int], None]) -> list[Damage]:
        """Read, decrypt and hash everything that ``points`` need; ``progress`` gets bytes of disk checked."""

    def delete(self, point: Point) -> None:
        """Delete a point. What only it needed becomes garbage."""

    def close(self) -> None:
        """Let go of caches and connections."""
