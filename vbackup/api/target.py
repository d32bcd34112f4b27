"""The target role: the form in which restore points are kept on a transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
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
    is_memory: bool = Field(default=False, description="no disk, but the machine's memory; targets need not care")


class Point(Description):
    """A restore point: the committed record of one capture."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    machine: Name
    hypervisor: str = Field(max_length=255, description="its name in the configuration that made the point")
    hypervisor_type: str = Field(max_length=64)
    machine_id: str = Field(max_length=255, description="what tells the machine from others of its hypervisor type")
    job: str = Field(default="", max_length=64, description="the job that made the point; its `keep` applies")
    group: str = Field(default="", max_length=64, description="the group that the machine was captured with")
    together: str = Field(default="", max_length=32, description="the same in all points of one capture of a group")
    members: tuple[str, ...] = Field(
        default=(), description="hypervisor:machine of all that were in the group then, captured or not"
    )
    time: AwareDatetime = Field(description="the moment of the capture, UTC")
    sequence: int = Field(default=0, ge=0, description="counts a machine's points, whatever its clock says")
    seconds: float = Field(default=0, ge=0, description="how long the run took")
    disks: tuple[PointDisk, ...]
    files: dict[Key, dict[str, Any]] = Field(
        default_factory=dict, description="nvram, tpm ...: the target's own business"
    )
    quiesced: bool = False
    marker: Marker | None = None
    locked_until: AwareDatetime | None = Field(default=None, description="the store deletes it for nobody before")
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
class PruneOrder:
    """How to prune."""

    dry_run: bool = False
    """Only say what would be done."""
    rewrite: int | None = None
    """Bytes that may at most be written to get at garbage between what is needed; None: as much as pays."""
    end_silent: bool = False
    """Take writers that show no life for dead at once, and not after an hour."""
    without: frozenset[str] = frozenset()
    """Ids of points that are taken as deleted already: for a dry run, which cannot delete them first."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What came of it; sizes in bytes of the store."""

    freed: int = 0
    """Deleted; with a dry run what would be."""
    rewritten: int = 0
    waiting: int = 0
    """Garbage that a later prune deletes, when the writers that run now have ended."""
    stored: int = 0
    """What is left."""
    notes: tuple[str, ...] = ()


class Elsewhere(Protocol):
    """Other copies of restore points, where a target that is repaired may get what it has lost."""

    def read(self, point: str, disk: str, wanted: Range) -> Buffer | None:
        """Return a range (at most 4 MiB) of a disk of the point with that id; None when nobody can give it."""

    def file(self, point: str, name: str) -> bytes | None:
        """Return a small file of a point, in the same way."""


@dataclass(frozen=True, slots=True)
class CheckOrder:
    """How to check. Without anything: whether all that is stored is there and says where all data is."""

    read_data: bool = False
    """Read stored bytes, too: of all, or of what the next two say."""
    percent: float = 100.0
    """The part of the stored bytes to be read: what was not read for the longest time."""
    since: timedelta | None = None
    """Read only what was not read well by this host in that time."""
    repair: bool = False
    """Set right what is wrong, and bring back what is lost from other copies."""
    elsewhere: Elsewhere | None = None
    """Where a repair may look beside the target itself. What it gives is never trusted: it must be what was lost."""

    @property
    def is_everything(self) -> bool:
        """Whether every stored byte is to be read."""
        return self.read_data and self.percent >= 100 and self.since is None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What came of it."""

    wrong: tuple[str, ...] = ()
    """Objects that are not as they should be, a sentence each; after a repair those that still are not."""
    damage: tuple[Damage, ...] = ()
    """What of restore points cannot be read back; after a repair what stays lost."""
    repaired: tuple[str, ...] = ()
    """What was set right, a sentence each."""
    notes: tuple[str, ...] = ()
    """What there is to know beside that, and no harm."""
    objects: int = 0
    """Stored objects that were looked at."""
    stored: int = 0
    """Bytes of data that are stored, as far as the target can tell."""
    read: int = 0
    """Bytes of these that were read."""


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
    state_dir: Path
    """A private directory for what must not be forgotten; it is made when it is needed."""


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
        """What `DiskWriter` calls are aligned to, in bytes: 4 MiB are a multiple of it."""

    def check(self) -> None:
        """Raise what makes it impossible to commit any more, if anything does: then no guest need be disturbed."""

    def base_problem(self, base: PointDisk) -> str | None:
        """Why nothing can be built on ``base``, as a phrase; None if it is whole. Cheap while the store is healthy.

        Content that this target never wrote is a problem, too, and no error.
        """

    def disk(self, size: int, base: PointDisk | None) -> DiskWriter:
        """Begin a disk of ``size`` bytes; ``base`` is the same disk in the machine's point before, if any.

        What a writer raises as `Corrupt` is about the base: without one it cannot happen.
        """

    def file(self, data: bytes) -> dict[str, Any]:
        """Keep a small file; the result goes to `Point.files`."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user must know of the store: things missing or damaged that this run went around or healed."""

    def commit(self, point: Point, description: MachineDescription) -> None:
        """Make ``point`` durable, after everything it needs. It exists for others from here on, not before.

        When it raises, the point is either not there or, where only the store's answer was lost, there and whole.

        The description is kept beside the point: it may hold what those that only write must not read again.
        """


class Target(Protocol):
    """Keeps restore points. Methods may be called from many threads at once.

    Constructing one does not touch the store.
    """

    name: ClassVar[str]
    """The ``type:`` in YAML."""
    options: ClassVar[type[BaseModel]]
    """The other keys of that entry, beside ``transport``, ``codecs`` and ``key``."""
    encodes: ClassVar[bool]
    """Whether data goes through codecs and is kept under a key; if not, the entry has neither of the two."""
    needs_files: ClassVar[bool]
    """Whether it works on the files of a transport that has some (`Transport.root`), and not through its methods."""

    def __init__(self, options: Any, context: TargetContext) -> None: ...

    @property
    def id(self) -> str:
        """32 hex digits that tell this target from all others. Raises `NotFound` if it was never initialised."""

    def init(self) -> None:
        """Make a new, empty target. Raises: `AlreadyExists`."""

    def writer(self) -> AbstractContextManager[Writer]:
        """Take points for the time of the context; leaving it on an error loses only what was not committed.

        Raises: `NotFound` if the target was never initialised.
        """

    def points(self) -> list[Point]:
        """All points that can be read, oldest first; for the others see `damaged_points`.

        Raises: `NotFound` if the target was never initialised.
        """

    def damaged_points(self) -> list[Damage]:
        """Points that are there but cannot be read: `points` leaves them out."""

    def description(self, point: Point) -> MachineDescription:
        """Return the machine as it was. Raises: `Corrupt`, `NotFound`; `WrongKey` for a key that only writes."""

    def extents(self, point: Point, disk: str, since: Point | None = None) -> Iterator[Extent]:
        """What a disk of a point holds, as data and zero; with ``since``, a point of this target, also as unchanged.

        Unchanged is what that point's disk of the same key is known to have as well. It need not be all that is equal.
        """

    def read(self, point: Point, disk: str, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges (each at most 4 MiB) in order, several under way. Every byte is authenticated and hashed.

        Raises: `Corrupt` naming the object, the disk and the range; `NotFound` naming a disk that the point has not;
        `Unavailable`.
        """

    def file(self, point: Point, name: str) -> bytes:
        """Read a small file of a point. Raises: `Corrupt`; `NotFound` naming it."""

    def verify(self, points: Sequence[Point], progress: Callable[[int], None]) -> list[Damage]:
        """Read, decrypt and hash everything that ``points`` need; points that were deleted are left out.

        ``progress`` gets bytes of disk that were checked: in the end as many as the disks have.
        """

    def check(self, order: CheckOrder, progress: Callable[[int], None]) -> CheckReport:
        """Check the target itself, whatever the points; ``progress`` gets bytes of the store that were read.

        Works beside writers, and with a key that only writes. A store that cannot be asked is no damage: its error is
        raised. What was read well is remembered, so that a check that was interrupted goes on where it was.
        """

    def delete(self, points: Sequence[Point]) -> None:
        """Delete points. What only they needed is garbage from then on; `prune` collects it.

        Their protection goes with them. A point that is gone already is no error; one that is being read or built on
        may be refused as `Busy`.
        """

    def forget(self, ids: Sequence[str]) -> None:
        """Delete points by their ids: those of `damaged_points`, also such as are gone already, are given up."""

    def protected(self) -> Mapping[str, str]:
        """Ids of points that are kept whatever the rules say, and why, as the user put it."""

    def protect(self, point: Point, reason: str) -> None:
        """Keep a point whatever the rules say; a reason that it had before is replaced."""

    def unprotect(self, point: Point) -> None:
        """Undo `protect`; a point that is not protected is no error."""

    def prune(self, order: PruneOrder) -> PruneReport:
        """Give back the space of what no point needs. Others may write, read and prune meanwhile."""

    def close(self) -> None:
        """Let go of caches and connections. Closing twice is no error."""
