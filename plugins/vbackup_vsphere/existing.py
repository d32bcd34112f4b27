"""The machine that a restore is to replace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vbackup.api import AlreadyExists, Busy
from vbackup_vsphere import devices
from vbackup_vsphere.devices import Place
from vbackup_vsphere.document import Config

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


@dataclass(frozen=True, slots=True)
class Existing:
    """The machine that is replaced."""

    ref: Any
    name: str
    instance: str
    disks: Mapping[Place, Any]
    """Its ``VirtualDisk`` devices."""
    is_template: bool


def find(session: Session, instance: str, *, overwrite: bool) -> Existing | None:
    """Return the machine with an instance UUID, None without one. Raises: `AlreadyExists`, `Busy`."""
    ref = _by_instance(session, instance) if instance else None
    if ref is None:
        return None
    now = session.get(
        ref, "name", "runtime.powerState", "snapshot.rootSnapshotList", "config.hardware.device", "config.template"
    )
    name = str(now["name"])
    if not overwrite:
        hint = "--overwrite replaces it, --as NAME makes a new machine beside it"
        raise AlreadyExists(f"the machine {name} is there already", hint=hint)
    require_off(name, now)
    kept = [tree.name for tree in now.get("snapshot.rootSnapshotList", ())]
    if kept:
        raise AlreadyExists(
            f"the machine {name} has snapshots, which would be lost: {', '.join(kept[:8])}",
            hint="remove them, or restore it beside with --as NAME",
        )
    there = devices.disk_places(now.get("config.hardware.device", ()))
    return Existing(ref, name, instance, there, bool(now.get("config.template")))


def require_off(name: str, values: Mapping[str, Any]) -> None:
    """Refuse a machine that runs; ``values`` has its ``runtime.powerState``."""
    if values.get("runtime.powerState") != "poweredOff":
        raise Busy(f"the machine {name} is running", hint="switch it off first", transient=False)


def _by_instance(session: Session, instance: str) -> Any:
    """Return the machine with an instance UUID, None without one."""
    rows = session.list(vim.VirtualMachine, "config.instanceUuid")
    return next((ref for ref, row in rows if row.get("config.instanceUuid") == instance), None)


def replaced_name(name: str, token: str) -> str:
    """Return the name of a machine while, or after, another one takes its place."""
    return f"{name[:60]}-replaced-{token}"


def others(config: Config, existing: Existing | None) -> dict[Place, Any]:
    """Return the disks of a machine that are not in the restore point, whose configuration is ``config``."""
    restored = {devices.place(config, disk) for disk in config.disks}
    return {} if existing is None else {at: one for at, one in existing.disks.items() if at not in restored}


def notes(existing: Existing | None, others: Mapping[Place, Any], token: str, *, goes_over: bool) -> Iterator[str]:
    """Yield what becomes of a machine that is replaced."""
    if existing is None:
        return
    yield (
        "it becomes a new object of the inventory: tags, permissions, custom attributes and rules of the old one have "
        "to be set again"
    )
    named = ", ".join(f"{at} ({others[at].backing.fileName})" for at in sorted(others))
    if others and goes_over:
        yield f"disks that are not in the restore point stay as they are now: {named}"
    elif others:
        yield (
            f"the old machine stays as {replaced_name(existing.name, token)}: it has disks that are not in the restore "
            f"point ({named}); attach what you need of them and delete it, but never start both: they have the same "
            "MAC addresses"
        )
