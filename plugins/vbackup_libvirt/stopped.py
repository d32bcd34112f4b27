"""Capturing a machine that is off: qemu-nbd on its images.

The images are read under QEMU's lock: the machine cannot be started meanwhile. What is written between our steps, if it
is started and stopped just then, is in both bitmaps, the old and the new one; so it is never lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element

from vbackup.api import Capture, CaptureLost, CaptureRequest, OpenCapture, Unsupported
from vbackup.api.clock import now
from vbackup_libvirt import checkpoints, scratch, state
from vbackup_libvirt.capture import Plan, Planned, description, discard, plan, undone
from vbackup_libvirt.connection import library
from vbackup_libvirt.document import Disk
from vbackup_libvirt.job import new_directory
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine
from vbackup_libvirt.sweep import bitmaps_in
from vbackup_qemu import image
from vbackup_qemu.image import ImageInfo, Trace
from vbackup_qemu.nbd import ALLOCATION, NbdClient, bitmap_context
from vbackup_qemu.server import serve
from vbackup_qemu.source import NbdDisk
from vbackup_undo.journal import Journal


@contextmanager
def capture_stopped(machine: Machine, request: CaptureRequest, journal: Journal[CaptureEntry]) -> Iterator[Capture]:
    """Hold a machine that is off as it is. See `vbackup.api.Hypervisor.capture`."""
    domain = machine.xml()
    planned = _prepare(machine, request, domain)
    directory = new_directory(machine.node.scratch)
    entry = CaptureEntry(owner=request.owner, machine=machine.name, uuid=machine.uuid, scratch=str(directory))
    tidy = partial(machine.node.host.remove_tree, str(directory))
    with undone(journal, entry, tidy, lambda: discard(planned)), ExitStack() as stack:
        scratch.make(machine.node, directory, None, planned.maker)
        if request.moment is not None:
            request.moment()
        _add_bitmaps(planned)
        time = now()
        disks = [_open_disk(planned, disk, Path(directory), stack) for disk in planned.disks]
        traces = image.trace(machine.node.host, [disk.path for disk in planned.disks if disk.path is not None])
        files, file_notes = state.read(machine.node, machine.uuid, domain)
        yield OpenCapture(
            machine=description(machine, planned, domain),
            time=time,
            quiesced=_was_shut_down(machine),
            disks=disks,
            files=files,
            marker=planned.marker(),
            notes=[*planned.notes, *file_notes, *_saved(machine)],
            verify=lambda: _verify(machine, traces),
        )


def _prepare(machine: Machine, request: CaptureRequest, domain: Element) -> Plan:
    created = int(now().timestamp())
    planned = plan(machine, request, domain, lambda d, info: _size(machine, d, info), created, force_share=False)
    excluded = bitmaps_in(machine, request.exclude)  # of the time before they were
    paths = [disk.path for disk in planned.disks if disk.path and disk.has_bitmaps]
    for name in checkpoints.orphans(machine, request.owner, planned.kept, planned.bitmaps.union(*excluded.values())):
        checkpoints.discard_stopped(machine, name, [*paths, *excluded])
    broken = {
        disk.key: reason
        for disk in planned.disks
        if planned.since is not None and (reason := _why_broken(disk, planned.since.checkpoint)) is not None
    }
    return planned.falling_back(broken)


def _size(machine: Machine, disk: Disk, info: ImageInfo | None) -> int:
    hint = f"start the machine, or leave {disk.key} out: `exclude_disks` of the job"
    if info is None:
        raise Unsupported(f"{machine.name}: network disk {disk.key} can be read only while the machine runs", hint=hint)
    if disk.encrypted or info.encrypted:
        raise Unsupported(
            f"{machine.name}: encrypted disk {disk.key} can be read only while the machine runs", hint=hint
        )
    return info.virtual_size


def _why_broken(disk: Planned, name: str) -> str | None:
    if disk.untracked is not None or disk.info is None:
        return None
    bitmap = disk.info.bitmaps.get(name)
    if bitmap is None:
        return "its bitmap is gone"
    if not bitmap.consistent:
        return "its bitmap is inconsistent: QEMU was killed"
    return None if bitmap.enabled else "its bitmap is disabled"


def _add_bitmaps(planned: Plan) -> None:
    """Add the new bitmaps. The metadata comes first, so that whoever finds a bitmap can tell whose it is."""
    machine, name = planned.machine, planned.checkpoint
    if name is not None:
        checkpoints.define_again(machine, name, planned.maker, planned.tracked, validate=False)
        for path in planned.tracked_paths:
            image.add_bitmap(machine.node.host, path, name)


def _open_disk(planned: Plan, disk: Planned, sockets: Path, stack: ExitStack) -> NbdDisk:
    assert disk.path is not None  # noqa: S101 - _size() refused network disks
    since, host = planned.since, planned.machine.node.host
    bitmap = since.checkpoint if since is not None and disk.full_reason is None else None
    socket = stack.enter_context(serve(host, disk.path, disk.disk.format, bitmap=bitmap, sockets=sockets))
    contexts = [ALLOCATION, *([bitmap_context(bitmap)] if bitmap is not None else [])]
    label = f"{planned.machine.name} disk {disk.key}"
    client = stack.enter_context(NbdClient(socket, contexts=contexts, label=label))
    if client.size != disk.size:
        raise CaptureLost(f"{label} was resized from {disk.size} to {client.size} bytes just before the backup")
    return NbdDisk(disk.key, client, bitmap=bitmap, full_reason=disk.full_reason)


def _was_shut_down(machine: Machine) -> bool:
    """Whether the guest switched itself off, which leaves file systems as clean as freezing does."""
    reason = machine.ask("asking why it is off", lambda domain: domain.state()[1])
    return bool(reason == library().VIR_DOMAIN_SHUTOFF_SHUTDOWN)


def _saved(machine: Machine) -> list[str]:
    """Tell of memory that was saved when the machine was switched off: the disks are in the middle of its work."""
    if machine.ask("looking for its saved memory", lambda domain: domain.hasManagedSaveImage(0)):
        return ["its memory is saved and is not captured: the disks are as if the plug had been pulled"]
    return []


def _verify(machine: Machine, traces: Sequence[Trace]) -> None:
    if machine.node.connection.patiently(lambda: machine.is_active):
        raise CaptureLost(f"{machine.name} was started during the backup, on images that it does not lock")
    for before, after in zip(traces, image.trace(machine.node.host, [t.path for t in traces]), strict=True):
        if before != after:
            hint = "by something other than QEMU"
            raise CaptureLost(f"{machine.name}: {before.path} was written to while it was read", hint=hint)
