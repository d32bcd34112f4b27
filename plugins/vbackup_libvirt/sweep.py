"""Undoing what dead runs left, and removing checkpoints that a newer restore point made superfluous."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import PurePosixPath

from vbackup.api import Marker, NotFound, VBackupError
from vbackup_libvirt import checkpoints, document, tracking
from vbackup_libvirt.freeze import thaw
from vbackup_libvirt.job import BackupJob
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.pause import settle
from vbackup_libvirt.tracking import Since
from vbackup_qemu import image
from vbackup_undo.journal import Journal


def sweep(node: Node, owner: str) -> list[str]:
    """See `vbackup.api.Hypervisor.sweep`."""
    done: list[str] = []
    for capture in node.captures.dead():
        if capture.entry is not None and capture.entry.owner == owner:
            done += undo_capture(node, capture)
    for restore in node.restores.dead():
        from vbackup_libvirt.restore import undo  # with all that a restore takes, for once in a blue moon

        done += undo(node, restore)
    return done


def undo_capture(node: Node, journal: Journal[CaptureEntry]) -> list[str]:
    """Undo what the journal of a dead capture names: the pause, the freeze, the job, the scratch files.

    Where the guest's agent does not answer the entry stays, for the next time. The checkpoint is left to the next
    capture, which knows which one counts.
    """
    entry = journal.entry
    if entry is None:
        return []
    machine = Machine(node, entry.machine, entry.uuid)
    # First: the agent of a paused guest does not answer.
    paused = tuple(name for name in entry.paused if not settle(machine, node.owed(name)))
    thawed = not entry.frozen or thaw(machine) is not None
    with suppress(NotFound):
        BackupJob(machine, PurePosixPath(entry.scratch)).end()
    node.host.remove_tree(entry.scratch)
    journal.update(paused=paused)
    if paused:
        return [f"could not resume {entry.machine}, which a capture may have left paused: libvirt does not do it"]
    if not thawed:
        return [f"could not thaw {entry.machine}, which a capture may have left frozen: its agent does not answer"]
    journal.update(frozen=False)
    journal.clear()
    return [f"undid what a dead capture of {entry.machine} had left"]


def remove_superseded(machine: Machine, owner: str, marker: Marker) -> None:
    """Remove the owner's checkpoints but that of ``marker``, which is durable now. Others' are never touched."""
    since = Since.parse(marker, owner)
    if since is None:
        return
    if machine.is_active:
        keys = [disk.key for disk in document.disks(machine.xml()) if disk.left_out is None and disk.format == "qcow2"]
        # Bitmaps without metadata are looked for by the next capture, which looks at the images anyway.
        for name in checkpoints.superseded(machine, owner, since.checkpoint, since.created, ()):
            checkpoints.discard(machine, name, keys)
        return
    images = bitmaps_in(machine)
    bitmaps = {name for info in images.values() for name in info}
    for name in checkpoints.superseded(machine, owner, since.checkpoint, since.created, bitmaps):
        checkpoints.discard_stopped(machine, name, list(images))


def bitmaps_in(machine: Machine, keys: Collection[str] | None = None) -> dict[str, set[str]]:
    """Return the bitmaps' names of all images that can hold some, or of the disks ``keys`` alone, by path."""
    found: dict[str, set[str]] = {}
    for disk in document.disks(machine.xml()):
        if disk.left_out is not None or disk.format != "qcow2" or (keys is not None and disk.key not in keys):
            continue
        with suppress(VBackupError):  # an image that is missing cannot hold anything up
            path = machine.path(disk)
            if path is None:
                continue
            info = image.info(machine.node.host, path, "qcow2", force_share=True)
            if tracking.why_untracked(disk, info, has_snapshots=False) is None:
                found[path] = set(info.bitmaps)
    return found
