"""The privileges that a backup and a restore need, where, and which of them the user lacks.

Source: VMware's VDDK guide, and the lists of migratekit, virt-v2v and other tools that do the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pyVmomi import vim

from vbackup.api import Unavailable
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.properties import moid
from vbackup_vsphere.session import Session

Place = Literal["root", "machine", "datastore", "pool", "network", "folder"]

_SAMPLE = 50  # objects of a kind that are asked for: who has a privilege on those has it on the others, too

_KINDS: dict[Place, type] = {
    "machine": vim.VirtualMachine,
    "datastore": vim.Datastore,
    "pool": vim.ResourcePool,
    "network": vim.Network,
    "folder": vim.Folder,
}


@dataclass(frozen=True, slots=True)
class Privilege:
    """One privilege, on what it is needed, and what for."""

    id: str
    place: Place
    purpose: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A privilege that the user lacks, and on how many objects of those that were asked for."""

    privilege: Privilege
    example: str
    """The name of one of them."""
    lacking: int
    asked: int

    def __str__(self) -> str:
        where = self.example if self.lacking == 1 else f"{self.example} and {self.lacking - 1} more"
        return f"{self.privilege.id} on {where} ({self.privilege.purpose})"


def for_backup(options: VsphereOptions) -> list[Privilege]:
    """Return what a backup needs with these options."""
    wanted = [
        Privilege("System.Read", "machine", "to see machines"),
        Privilege("Sessions.ValidateSession", "root", "to keep the session"),
        Privilege("VirtualMachine.State.CreateSnapshot", "machine", "to make snapshots"),
        Privilege("VirtualMachine.State.RemoveSnapshot", "machine", "to remove our snapshots"),
        Privilege("VirtualMachine.Provisioning.GetVmFiles", "machine", "to read a machine's files"),
    ]
    if options.tracking != "no":
        wanted.append(Privilege("VirtualMachine.Config.ChangeTracking", "machine", "to know what changed"))
    purpose = "to read by `datastore`" if "datastore" in options.read else "to read firmware variables and memory"
    wanted += [Privilege(f"Datastore.{name}", "datastore", purpose) for name in ("Browse", "FileManagement")]
    if "nfc" in options.read:
        wanted.append(Privilege("VApp.Export", "machine", "to read by `nfc`"))
    if "vddk" in options.read and options.vddk is not None:
        wanted += [Privilege(f"VirtualMachine.{name}", "machine", "to read by `vddk`") for name in _VDDK]
        wanted += [Privilege(f"Global.{name}", "root", "to read by `vddk`") for name in _VDDK_GLOBAL]
    return wanted


def for_restore(options: VsphereOptions) -> list[Privilege]:
    """Return what a restore needs beside what a backup does."""
    wanted = [Privilege(f"VirtualMachine.Inventory.{name}", "folder", "to make machines") for name in _INVENTORY]
    wanted += [Privilege(f"VirtualMachine.Config.{name}", "folder", "to set up machines") for name in _CONFIG]
    wanted += [Privilege(f"VirtualMachine.Interact.{name}", "folder", "to start machines") for name in _POWER]
    wanted += [
        Privilege("Resource.AssignVMToPool", "pool", "to make machines"),
        Privilege("VApp.Import", "pool", "to write disks"),
        Privilege("Datastore.AllocateSpace", "datastore", "to write disks"),
        Privilege("Datastore.FileManagement", "datastore", "to put firmware variables back"),
        Privilege("VirtualMachine.Provisioning.MarkAsTemplate", "folder", "to put templates back"),
        Privilege("VirtualMachine.Provisioning.MarkAsVM", "folder", "to put templates back"),
        Privilege("Network.Assign", "network", "to connect machines"),
    ]
    wanted.append(Privilege("VirtualMachine.Provisioning.PutVmFiles", "folder", "to write disks"))
    if options.vddk is not None:
        wanted.append(Privilege("VirtualMachine.Provisioning.DiskRandomAccess", "machine", "to write by `vddk`"))
    return wanted


_VDDK = ("Config.DiskLease", "Provisioning.DiskRandomRead", "Provisioning.DiskRandomAccess")
_VDDK_GLOBAL = ("DisableMethods", "EnableMethods", "Licenses")
_INVENTORY = ("Create", "CreateFromExisting", "Delete")
_CONFIG = (
    "AddNewDisk",
    "AddExistingDisk",
    "AddRemoveDevice",
    "RemoveDisk",
    "CPUCount",
    "Memory",
    "Resource",
    "Settings",
    "AdvancedConfig",
    "EditDevice",
    "Rename",
)
_POWER = ("PowerOn", "PowerOff")


def missing(session: Session, wanted: Iterable[Privilege]) -> list[Missing]:
    """Return which privileges the session's user lacks, and on what. Raises: `Unavailable`, `AccessDenied`."""
    by_place: dict[Place, list[Privilege]] = {}
    for privilege in wanted:
        by_place.setdefault(privilege.place, []).append(privilege)
    found: list[Missing] = []
    for place, privileges in by_place.items():
        objects = _objects(session, place)
        if objects:
            found += _lacking(session, objects, privileges)
    return found


def _objects(session: Session, place: Place) -> dict[str, Any]:
    """Return objects of a kind by their ids."""
    if place == "root":
        return {moid(session.content.rootFolder): session.content.rootFolder}
    rows = session.list(_KINDS[place], "name")
    if place == "folder":
        rows = [row for row in rows if row[1].get("name") in {"vm", "Discovered virtual machine"}] or rows
    return {moid(ref): ref for ref, _ in rows[:_SAMPLE]}


def _lacking(session: Session, objects: dict[str, Any], privileges: list[Privilege]) -> list[Missing]:
    manager = session.content.authorizationManager
    current = session.get(session.content.sessionManager, "currentSession").get("currentSession")
    if current is None:
        raise Unavailable(f"{session.alias}: the session's privileges cannot be asked for: the host names no session")
    ids = [privilege.id for privilege in privileges]
    answers = session.call(
        f"{session.alias}: asking for privileges",
        lambda: manager.HasPrivilegeOnEntities(list(objects.values()), current.key, ids),
        repeat=True,
    )
    without: dict[str, list[Any]] = {}
    for answer in answers or ():
        for one in answer.privAvailability:
            if not one.isGranted:
                without.setdefault(one.privId, []).append(answer.entity)
    return [
        Missing(privilege, session.name_of(refs[0]), len(refs), len(objects))
        for privilege in privileges
        if (refs := without.get(privilege.id))
    ]
