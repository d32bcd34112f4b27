"""Capturing a machine that runs: a libvirt backup job in pull mode, read over NBD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from xml.etree.ElementTree import Element

from vbackup.api import Capture, CaptureLost, CaptureRequest, OpenCapture, Quiesce
from vbackup.api.clock import now
from vbackup_libvirt import checkpoints, document, io_threads, scratch, state
from vbackup_libvirt.capture import Plan, description, discard, plan, undone
from vbackup_libvirt.freeze import frozen
from vbackup_libvirt.guard import Guard, guarded
from vbackup_libvirt.job import BackupJob, bitmap_of, make_way, new_directory
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.memory import Memory, opened, saved
from vbackup_libvirt.node import Machine
from vbackup_libvirt.watch import Watch, WatchedDisk
from vbackup_qemu.nbd import ALLOCATION, NbdClient, bitmap_context
from vbackup_qemu.source import NbdDisk
from vbackup_undo.journal import Journal


@contextmanager
def capture_running(machine: Machine, request: CaptureRequest, journal: Journal[CaptureEntry]) -> Iterator[Capture]:
    """Hold a moment of a running machine open. See `vbackup.api.Hypervisor.capture`."""
    job = BackupJob(machine, new_directory(machine.node.scratch))
    with guarded(job) as guard:  # first: it gets ready while we plan
        notes = [*_still_paused(journal), *make_way(machine)]
        live = machine.xml()
        io_threads.refuse(machine, live, request.exclude)
        planned = _prepare(machine, request, live)
        scratch.require_room(machine.node, machine.name, planned.size)
        with _captured(planned, live, job, guard, journal, notes) as capture:
            yield capture


def _still_paused(journal: Journal[CaptureEntry]) -> Iterator[str]:
    if journal.entry is not None and journal.entry.paused:
        yield "the machine may be paused since an earlier backup that died: libvirt could not resume it just now"


@contextmanager
def _captured(
    planned: Plan, live: Element, job: BackupJob, guard: Guard, journal: Journal[CaptureEntry], notes: Sequence[str]
) -> Iterator[Capture]:
    machine, request = planned.machine, planned.request
    entry = CaptureEntry(
        owner=request.owner,
        machine=machine.name,
        uuid=machine.uuid,
        scratch=str(job.scratch),
        frozen=journal.entry is not None and journal.entry.frozen,  # an earlier run could not thaw it
        paused=journal.entry.paused if journal.entry is not None else (),
    )
    with (
        undone(journal, entry, lambda: _end(job, guard), lambda: discard(planned)),
        ExitStack() as stack,
    ):
        guard.begun()
        scratch.make(machine.node, job.scratch, document.qemu_owner(live), planned.maker)
        moment = _begin(planned, live, job, guard, journal)
        watch = stack.enter_context(Watch(job))
        disks = [WatchedDisk(disk, watch) for disk in _open_disks(planned, job, stack)]
        memory = stack.enter_context(opened(machine, moment.memory)) if moment.memory is not None else None
        yield OpenCapture(
            machine=description(machine, planned, live),
            time=moment.time,
            quiesced=moment.frozen,
            disks=disks,
            memory=memory,
            files=moment.files,
            marker=planned.marker(),
            notes=[*notes, *planned.notes, *moment.notes],
            verify=watch.verify,
        )


def _prepare(machine: Machine, request: CaptureRequest, live: Element) -> Plan:
    """Plan, remove what dead runs left, and have libvirt look at the bitmaps that the plan counts on."""
    wanted = [disk for disk in document.disks(live) if disk.left_out is None and disk.key not in request.exclude]
    sizes = {disk.key: _size(machine, disk.key) for disk in wanted}
    created = int(now().timestamp())
    planned = plan(machine, request, live, lambda disk, _: sizes[disk.key], created, force_share=True)
    keys = [disk.key for disk in planned.disks if disk.has_bitmaps]
    keys += [disk.key for disk in document.disks(live) if disk.key in request.exclude and disk.format == "qcow2"]
    for name in checkpoints.orphans(machine, request.owner, planned.kept, planned.bitmaps):
        checkpoints.discard(machine, name, keys)
    if planned.since is None:
        return planned
    since = planned.since
    maker = planned.maker.model_copy(update={"created": since.created})
    broken = checkpoints.make_valid(machine, since.checkpoint, maker, planned.incremental)
    return planned.falling_back(broken)


def _size(machine: Machine, key: str) -> int:
    return int(machine.ask(f"asking for the size of disk {key}", lambda domain: domain.blockInfo(key, 0)[0]))


def _end(job: BackupJob, guard: Guard) -> None:
    job.machine.node.connection.patiently(job.end)
    job.machine.node.host.remove_tree(str(job.scratch))
    guard.ended()


@dataclass(frozen=True, slots=True)
class _Moment:
    """What was had at the moment of the capture."""

    time: datetime
    frozen: bool
    memory: str | None
    files: dict[str, bytes]
    notes: list[str]


def _begin(planned: Plan, live: Element, job: BackupJob, guard: Guard, journal: Journal[CaptureEntry]) -> _Moment:
    """Start the job with the guest frozen or paused, and read what else belongs to the moment."""
    machine, since, request = planned.machine, planned.since, planned.request
    checkpoint = None
    if planned.checkpoint is not None:
        keys = [disk.key for disk in document.disks(live)]
        checkpoint = checkpoints.describe(planned.checkpoint, planned.maker, keys, planned.tracked)
    guard.wait_ready()
    if request.moment is not None:
        request.moment()
    with ExitStack() as stack:
        memory = stack.enter_context(saved(planned, live, job, guard, journal)) if request.memory else Memory()
        # A guest that went on from its memory with frozen file systems would stand still, and nobody would thaw it.
        quiesce = request.quiesce if memory.path is None else Quiesce.NO
        freeze = stack.enter_context(frozen(machine, quiesce, guard, journal))
        time = now()
        incremental = dict.fromkeys(planned.incremental, since.checkpoint) if since is not None else {}
        job.begin([d.key for d in planned.disks], incremental, checkpoint)
        files, notes = state.read(machine.node, machine.uuid, live)
    if memory.path is not None and request.quiesce is Quiesce.YES:
        notes.append("the guest was not frozen: its memory is of the same moment as its disks")
    time = time if memory.path is None else memory.since
    return _Moment(time, freeze.frozen, memory.path, files, [*notes, *memory.notes, *freeze.notes])


def _open_disks(planned: Plan, job: BackupJob, stack: ExitStack) -> Iterator[NbdDisk]:
    socket = stack.enter_context(planned.machine.node.host.local_socket(str(job.socket)))
    for disk in planned.disks:
        bitmap = bitmap_of(disk.key) if disk.full_reason is None else None
        contexts = [ALLOCATION, *([bitmap_context(bitmap)] if bitmap is not None else [])]
        label = f"{planned.machine.name} disk {disk.key}"
        client = stack.enter_context(NbdClient(socket, disk.key, contexts=contexts, label=label))
        if client.size != disk.size:
            raise CaptureLost(f"{label} was resized from {disk.size} to {client.size} bytes just before the backup")
        yield NbdDisk(disk.key, client, bitmap=bitmap, full_reason=disk.full_reason)
