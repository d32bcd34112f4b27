"""What the two ways of capturing a machine, running and off, have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from vbackup.api import CaptureRequest, MachineDescription, Marker, SourceDisk, Unsupported, VBackupError
from vbackup_libvirt import checkpoints, document, tracking
from vbackup_libvirt.document import Disk
from vbackup_libvirt.journal import CaptureEntry, Journal
from vbackup_libvirt.maker import Maker
from vbackup_libvirt.node import Machine
from vbackup_libvirt.tracking import Since, TrackedDisk
from vbackup_qemu import image
from vbackup_qemu.image import ImageInfo


@dataclass(frozen=True, slots=True)
class Planned:
    """A disk that is going to be captured; size in bytes."""

    disk: Disk
    path: str | None
    """Where it is on the host, None for a network disk."""
    info: ImageInfo | None
    """Of a local qcow2 image."""
    size: int
    untracked: str | None
    """Why it cannot keep a bitmap."""
    full_reason: str | None

    @property
    def key(self) -> str:
        """The disk's key."""
        return self.disk.key

    @property
    def has_bitmaps(self) -> bool:
        """Whether bitmaps were seen in its image, or may be in it."""
        return self.untracked is None or bool(self.info and self.info.bitmaps)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be captured of a machine."""

    machine: Machine
    request: CaptureRequest
    since: Since | None
    disks: tuple[Planned, ...]
    notes: tuple[str, ...]
    maker: Maker
    checkpoint: str | None
    """The new one's name; None when no disk can keep a bitmap."""

    @property
    def tracked(self) -> list[str]:
        """The disks that get a bitmap now."""
        return [planned.key for planned in self.disks if planned.untracked is None]

    @property
    def tracked_paths(self) -> list[str]:
        """Where those are."""
        return [planned.path for planned in self.disks if planned.untracked is None and planned.path is not None]

    @property
    def incremental(self) -> list[str]:
        """The disks of which the old bitmap tells what changed."""
        return [planned.key for planned in self.disks if planned.full_reason is None]

    @property
    def kept(self) -> str | None:
        """The checkpoint that the last restore point needs."""
        return self.since.checkpoint if self.since is not None else None

    @property
    def size(self) -> int:
        """Bytes of all disks."""
        return sum(planned.size for planned in self.disks)

    @property
    def bitmaps(self) -> set[str]:
        """The names of the bitmaps in all images."""
        return {name for planned in self.disks if planned.info is not None for name in planned.info.bitmaps}

    def falling_back(self, reasons: dict[str, str]) -> Plan:
        """Return the plan with full reads of the disks in ``reasons``."""
        disks = (replace(d, full_reason=d.full_reason or reasons.get(d.key)) for d in self.disks)
        return replace(self, disks=tuple(disks))

    def marker(self) -> Marker | None:
        """Return the marker of the capture that this plan makes."""
        if self.checkpoint is None:
            return None
        disks = {d.key: TrackedDisk(size=d.size, source=d.disk.source) for d in self.disks if d.untracked is None}
        made = self.maker.created
        return Since(checkpoint=self.checkpoint, uuid=self.machine.uuid, created=made, disks=disks).dump()


def plan(
    machine: Machine,
    request: CaptureRequest,
    domain: Element,
    size_of: Callable[[Disk, ImageInfo | None], int],
    created: int,
    *,
    force_share: bool,
) -> Plan:
    """Decide what is captured, and how each disk is read as far as the marker tells."""
    has_snapshots = machine.has_internal_snapshots
    since = None if has_snapshots else Since.parse(request.since, request.owner)
    planned: list[Planned] = []
    notes: list[str] = []
    for disk in document.disks(domain):
        if disk.key in request.exclude:
            notes.append(f"disk {disk.key} is left out as asked")
            continue
        if disk.left_out is not None:
            notes.append(f"disk {disk.key} is not captured: {disk.left_out}")
            continue
        notes += [f"disk {disk.key} {note}" for note in _remarks(disk)]
        planned.append(_look(machine, disk, since, size_of, has_snapshots=has_snapshots, force_share=force_share))
    notes += document.others_left_out(domain)
    if not planned:
        raise Unsupported(f"{machine.name} has no disk that can be captured: {'; '.join(notes) or 'it has no disks'}")
    return Plan(
        machine=machine,
        request=request,
        since=since,
        disks=tuple(planned),
        notes=tuple(notes),
        maker=Maker.here(request.owner, created),
        checkpoint=checkpoints.new_name(request.owner) if any(p.untracked is None for p in planned) else None,
    )


def _look(
    machine: Machine,
    disk: Disk,
    since: Since | None,
    size_of: Callable[[Disk, ImageInfo | None], int],
    *,
    has_snapshots: bool,
    force_share: bool,
) -> Planned:
    path = machine.path(disk)
    info = image.info(machine.node.host, path, disk.format, force_share=force_share) if path is not None else None
    size = size_of(disk, info)
    untracked = tracking.why_untracked(disk, info, has_snapshots=has_snapshots)
    return Planned(disk, path, info, size, untracked, untracked or tracking.why_full(disk, size, machine.uuid, since))


def _remarks(disk: Disk) -> Iterable[str]:
    if disk.shareable:
        yield "is shareable: what other machines write to it meanwhile is not held back"
    if disk.encrypted:
        yield "is encrypted: the restore point holds what the guest sees of it"


def description(machine: Machine, plan: Plan, live: Element) -> MachineDescription:
    """Describe the machine: as it will start next time, with the disks that were plugged in only for now."""
    text = machine.text(inactive=True)
    domain = document.parse(text)
    known = {disk.key for disk in document.disks(domain)}
    extra = [d for d in live.iterfind("devices/disk") if document.disk_key(d) not in known]
    if extra:
        devices = domain.find("devices")
        assert devices is not None  # noqa: S101 - libvirt always writes it
        devices.extend(extra)
        text = ET.tostring(domain, encoding="unicode")
    return document.describe(domain, text, {planned.key: planned.size for planned in plan.disks})


@contextmanager
def undone(
    journal: Journal[CaptureEntry], entry: CaptureEntry, undo: Callable[[], None], discard: Callable[[], None]
) -> Iterator[None]:
    """Journal what is going to be made; on the way out ``undo`` it, and ``discard`` the marker if the capture fails.

    Where that cannot be done now the journal stays, for a sweep or the next capture: a copy that is complete by then is
    good all the same, and an error that brought us here must not be hidden.
    """
    journal.write(entry)
    try:
        yield
    except BaseException:
        _leave(journal, undo, discard)
        raise
    _leave(journal, undo)


def _leave(journal: Journal[CaptureEntry], *steps: Callable[[], None]) -> None:
    try:
        for step in steps:
            step()
    except VBackupError:
        return
    journal.clear()


def discard(plan: Plan) -> None:
    """Remove the checkpoint of a capture that failed, whatever state the machine is in by now."""
    machine, name = plan.machine, plan.checkpoint
    if name is None:
        return
    if machine.is_active:
        checkpoints.discard(machine, name, plan.tracked)
    else:
        checkpoints.discard_stopped(machine, name, plan.tracked_paths)


@dataclass(frozen=True, slots=True)
class OpenCapture:
    """A `Capture`."""

    machine: MachineDescription
    time: datetime
    quiesced: bool
    disks: Sequence[SourceDisk]
    files: dict[str, bytes]
    marker: Marker | None
    notes: Sequence[str]
    verify: Callable[[], None] = field(repr=False)

    def check(self) -> None:
        """See `Capture.check`."""
        self.verify()
