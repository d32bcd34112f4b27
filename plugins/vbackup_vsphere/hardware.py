"""The disks among a machine's devices, and which of them a snapshot cannot hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyVmomi import vim

from vbackup_vsphere import devices
from vbackup_vsphere.configuration import datastore_of, size_of
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.properties import moid
from vbackup_vsphere.session import Session

_Disk = vim.vm.device.VirtualDisk


def disks(session: Session, hardware: Iterable[Any]) -> list[VmDisk]:
    """Return the disks of a machine's or a snapshot's ``config.hardware.device``."""
    by_key = {device.key: device for device in hardware}
    types: dict[str, str] = {}
    ours = (device for device in by_key.values() if isinstance(device, _Disk))
    found = (_disk(session, device, by_key.get(device.controllerKey), types) for device in ours)
    return sorted(found, key=lambda disk: disk.device)


def _disk(session: Session, device: Any, controller: Any, types: dict[str, str]) -> VmDisk:
    backing = device.backing
    file = str(getattr(backing, "fileName", None) or "")
    model = devices.controller_model(controller) or ""
    return VmDisk(
        device=device.key,
        label=(device.deviceInfo.label if device.deviceInfo else "") or f"disk {device.key}",
        size=size_of(device),
        file=file,
        uuid=str(getattr(backing, "uuid", None) or ""),
        change_id=getattr(backing, "changeId", None) or None,
        has_parent=getattr(backing, "parent", None) is not None,
        datastore=datastore_of(file),
        datastore_type=_datastore_type(session, getattr(backing, "datastore", None), types),
        is_thin=bool(getattr(backing, "thinProvisioned", False)),
        is_encrypted=getattr(backing, "keyId", None) is not None,
        bus=devices.CONTROLLERS[model].bus if model else "",
        controller=model,
        left_out=_left_out(backing, controller),
    )


def _datastore_type(session: Session, datastore: Any, types: dict[str, str]) -> str:
    if datastore is None:
        return ""
    key = moid(datastore)
    if key not in types:
        types[key] = str(session.get(datastore, "summary.type").get("summary.type", ""))
    return types[key]


def _left_out(backing: Any, controller: Any) -> str | None:
    if isinstance(backing, _Disk.RawDiskMappingVer1BackingInfo):
        if backing.compatibilityMode != "virtualMode":
            return "a raw device mapping in physical mode, which snapshots do not hold"
    elif isinstance(backing, (_Disk.RawDiskVer2BackingInfo, _Disk.PartitionedRawDiskVer2BackingInfo)):
        return "a raw device, which snapshots do not hold"
    mode = str(getattr(backing, "diskMode", None) or "")
    if mode.startswith("independent"):
        return "independent, so that snapshots do not hold it"
    if mode == "nonpersistent":
        return "nonpersistent: its content ends when the machine is switched off"
    if getattr(backing, "sharing", None) == "sharingMultiWriter":
        return "shared with other machines (multi-writer)"
    if str(getattr(controller, "sharedBus", None) or "noSharing") != "noSharing":
        return "on a shared bus, which snapshots do not hold"
    return None
