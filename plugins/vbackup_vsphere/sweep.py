"""Undoing what dead captures left: by journal, and by the names of snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pyVmomi import vim

from vbackup.api import Busy, NotFound, VBackupError
from vbackup_undo.journal import Journal
from vbackup_undo.maker import Maker
from vbackup_vsphere import restore_journal, snapshot
from vbackup_vsphere.inventory import Found
from vbackup_vsphere.journal import CaptureEntry
from vbackup_vsphere.properties import moid
from vbackup_vsphere.session import Session
from vbackup_vsphere.site import Site
from vbackup_vsphere.snapshot import Snapshot


@contextmanager
def undone(session: Session, vm: Any, journal: Journal[CaptureEntry], entry: CaptureEntry) -> Iterator[None]:
    """Journal the snapshot that is going to be made, and remove it on every way out.

    What cannot be removed now stays journaled, for a sweep or the next capture. That is an error only if nothing else
    went wrong: the engine then tells it beside the restore point, which is good all the same.
    """
    journal.write(entry)
    try:
        yield
    except BaseException:
        with suppress(VBackupError):
            undo(session, vm, journal)
        raise
    undo(session, vm, journal)


def undo(session: Session, vm: Any, journal: Journal[CaptureEntry]) -> bool:
    """Remove the journaled snapshot of a machine, and what it left of its disks; return whether there was one."""
    entry = journal.entry
    if entry is None:
        return False
    what = f"removing the snapshot of {entry.machine}"
    removed = snapshot.remove(session, vm, what, lambda one: one.name in entry.snapshots)
    if not entry.needed_consolidation and snapshot.needs_consolidation(session, vm):
        snapshot.consolidate(session, vm, entry.machine)
        removed += 1
    journal.clear()
    return removed > 0


def before_capture(site: Site, found: Found, journal: Journal[CaptureEntry], owner: str) -> list[str]:
    """Remove what dead captures of a machine left; return notes on what could not be removed."""
    try:
        undo(site.session, found.ref, journal)
        _remove_stale(site, found, owner)
    except VBackupError as error:
        return [f"what a dead capture left is still there: {error}"]
    return []


def sweep(site: Site, owner: str) -> list[str]:
    """See `vbackup.api.Hypervisor.sweep`."""
    done: list[str] = []
    for journal in site.captures.dead():
        if journal.entry is not None and journal.entry.owner == owner:
            done += _told(journal.entry.machine, lambda: _undo_dead(site, journal))  # noqa: B023 - called at once
    done += restore_journal.sweep(site.session, site.context)
    for ref, row in site.session.list(vim.VirtualMachine, "name", "config.instanceUuid", "snapshot"):
        if any(_is_stale(site.session, one, owner) for one in snapshot.walk(row.get("snapshot"))):
            uuid, name = row.get("config.instanceUuid"), row.get("name", "a machine")
            found = Found(ref=ref, name=name, uuid=uuid or moid(ref), running=False, folder="", is_template=False)
            with suppress(Busy), site.captures.open(found.uuid):
                done += _told(name, lambda: _remove_stale(site, found, owner))  # noqa: B023
    return done


def _told(machine: str, step: Callable[[], bool]) -> list[str]:
    try:
        return [f"removed the snapshot that a dead capture of {machine} had left"] if step() else []
    except VBackupError as error:
        return [f"could not remove what a dead capture of {machine} had left: {error}"]


def _undo_dead(site: Site, journal: Journal[CaptureEntry]) -> bool:
    entry = journal.entry
    if entry is None:
        return False
    vm = _machine(site, entry)
    if vm is None:  # its snapshots are gone with it
        journal.clear()
        return False
    return undo(site.session, vm, journal)


def _machine(site: Site, entry: CaptureEntry) -> Any | None:
    vm = site.session.object(vim.VirtualMachine, entry.moid)
    with suppress(NotFound):
        if site.session.get(vm, "config.instanceUuid").get("config.instanceUuid", entry.uuid) == entry.uuid:
            return vm
    return site.inventory.by_uuid(entry.uuid)


def _remove_stale(site: Site, found: Found, owner: str) -> bool:
    what = f"removing a snapshot of {found.name} that a dead capture left"
    if not any(_is_stale(site.session, one, owner) for one in snapshot.of_machine(site.session, found.ref)):
        return False
    return snapshot.remove(site.session, found.ref, what, lambda one: _is_stale(site.session, one, owner)) > 0


def _is_stale(session: Session, one: Snapshot, owner: str) -> bool:
    maker: Maker | None = one.maker(owner)
    return maker is not None and snapshot.is_stale(session, one, maker)
