"""What the two ways of capturing a machine, running and off, have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from vbackup.api import CaptureRequest, MachineDescription, Marker, Unsupported, VBackupError
from vbackup_libvirt import checkpoints, document, tracking
from vbackup_libvirt.describe import describe
from vbackup_libvirt.document import Disk
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine
from vbackup_libvirt.tracking import Since, TrackedDisk
from vbackup_qemu import image
from vbackup_qemu.image import ImageInfo
from vbackup_undo.journal import Journal
from vbackup_undo.maker import Maker


@dataclass(frozen=True, slots=True)
class Planned:
    """A disk that is going to be captured; size in bytes."""

    disk: Disk
    path: str | None
    """Where it is on the host, None for a network disk."""
    info: ImageInfo | None
    """Of a local qcow2 image."""
    size: int
    tracked: TrackedDisk | None
    """What the marker says of it; None when it cannot keep a bitmap."""
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
        disks = {d.key: d.tracked for d in self.disks if d.tracked is not None}
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
        if disk.key in request.exclude or disk.is_drive:
            continue
        if disk.left_out is not None:
            notes.append(f"disk {disk.key} is not captured: {disk.left_out}")
            continue
        notes += [f"disk {disk.key} {note}" for note in _remarks(disk)]
        planned.append(_look(machine, disk, since, size_of, has_snapshots=has_snapshots, force_share=force_share))
    notes += document.others_left_out(domain)
    notes += _exchanged([d.disk for d in planned], machine.xml(inactive=True))
    if not planned:
        excluded = sorted(disk.key for disk in document.disks(domain) if disk.key in request.exclude)
        notes += [f"disk {key} is left out, as the job wants it (`exclude_disks`)" for key in excluded]
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
    if untracked is not None or path is None or info is None:
        return Planned(disk, path, info, size, None, untracked, untracked)
    try:
        tracked = _tracked(machine, disk, path, info, size, force_share=force_share)
    except Unsupported as error:
        return Planned(disk, path, info, size, None, error.message, error.message)
    full = tracking.why_full(disk.key, tracked, machine.uuid, since)
    return Planned(disk, path, info, size, tracked, None, full)


def _tracked(machine: Machine, disk: Disk, path: str, info: ImageInfo, size: int, *, force_share: bool) -> TrackedDisk:
    host = machine.node.host
    below = image.backing_files(host, path, disk.format, force_share=force_share) if info.backing else []
    top, *backing = image.trace(host, [path, *below])
    return TrackedDisk(size=size, source=disk.source, inode=top.inode, backing=tuple(backing))


def _remarks(disk: Disk) -> Iterable[str]:
    if disk.shareable:
        yield "is shareable: what other machines write to it meanwhile is not held back"
    if disk.encrypted:
        yield "is encrypted: the restore point holds what the guest sees of it"


def _exchanged(captured: Iterable[Disk], next_start: Element) -> Iterable[str]:
    """Yield notes on keys that will be those of other disks from the next start on."""
    later = {disk.key: disk.source for disk in document.disks(next_start)}
    for disk in captured:
        if disk.source != later.get(disk.key, disk.source):
            yield f"disk {disk.key} is {disk.source} now, which is captured, and {later[disk.key]} at the next start"


def description(machine: Machine, plan: Plan, live: Element) -> MachineDescription:
    """Describe the machine: as it will start next time, but with the disks that it has now."""
    text = machine.text(inactive=True)
    domain = document.parse(text)
    later = {disk.key: disk.source for disk in document.disks(domain)}
    captured = {planned.key for planned in plan.disks}
    differing = {
        disk.key
        for disk in document.disks(live)
        if disk.key not in later or (disk.key in captured and disk.source != later[disk.key])
    }
    if differing:
        _take_over(domain, live, differing)
        text = ET.tostring(domain, encoding="unicode")
    return describe(domain, text, {planned.key: planned.size for planned in plan.disks})


def _take_over(domain: Element, live: Element, keys: set[str]) -> None:
    """Have the document speak of the live disks ``keys``, be they its own or not."""
    devices = domain.find("devices")
    assert devices is not None  # noqa: S101 - libvirt always writes it
    for old in [d for d in devices.findall("disk") if document.disk_key(d) in keys]:
        devices.remove(old)
    for element in [deepcopy(d) for d in live.iterfind("devices/disk") if document.disk_key(d) in keys]:
        for address in element.findall("address"):
            element.remove(address)  # the next start may have something else there
        devices.append(element)


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
