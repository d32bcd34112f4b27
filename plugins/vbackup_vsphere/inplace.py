"""A new machine takes the place of an old one.

Nothing is ever written over the disks of the old one, not even where VDDK could: a restore that dies half-way would
leave neither the old machine nor the new. Until the new one is complete everything can go back; then the old one goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vbackup.api import AlreadyExists
from vbackup_undo.journal import Journal
from vbackup_vsphere import devices, restore_journal
from vbackup_vsphere.existing import Existing, replaced_name, require_off
from vbackup_vsphere.goal import Goal
from vbackup_vsphere.properties import moid
from vbackup_vsphere.restore_journal import RestoreEntry

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


def check(session: Session, existing: Existing) -> None:
    """Refuse a machine that has changed since it was looked at. Raises: `Busy`, `AlreadyExists`, `NotFound`."""
    now = session.get(existing.ref, "runtime.powerState", "snapshot.rootSnapshotList", "config.hardware.device")
    require_off(existing.name, now)
    if now.get("snapshot.rootSnapshotList"):
        raise AlreadyExists(
            f"the machine {existing.name} has got a snapshot meanwhile", hint="remove it, and restore again"
        )
    if set(devices.disk_places(now.get("config.hardware.device", ()))) != set(existing.disks):
        raise AlreadyExists(f"the machine {existing.name} has got other disks meanwhile", hint="restore again")


def make_way(session: Session, goal: Goal, existing: Existing, journal: Journal[RestoreEntry], instance: str) -> None:
    """Give the old machine another name and another instance UUID: ``instance``, so that the new one can have its."""
    entry = journal.entry
    if entry is None:
        return
    check(session, existing)
    journal.update(
        old=moid(existing.ref),
        old_name=existing.name,
        old_instance=existing.instance,
        old_template=existing.is_template,
    )
    if existing.is_template:  # a template can be changed only as a machine
        what, place = f"{session.alias}: making {existing.name} a machine", goal.placement
        session.call(what, lambda: existing.ref.MarkAsVirtualMachine(place.pool, place.host))
    name = replaced_name(existing.name, entry.token)
    what = f"{session.alias}: renaming {existing.name} to {name}"
    restore_journal.rename(session, existing.ref, name, instance, what)
