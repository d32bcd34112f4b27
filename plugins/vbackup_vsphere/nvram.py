"""The firmware variables of a machine that boots by EFI: its ``.nvram`` file."""

from __future__ import annotations

from vbackup.api import Firmware, VBackupError
from vbackup_vsphere import folder
from vbackup_vsphere.plan import Plan
from vbackup_vsphere.session import Session


def read(session: Session, plan: Plan, notes: list[str]) -> dict[str, bytes]:
    """Return ``{"nvram": content}``; without one, or when it cannot be read, nothing and a note."""
    if plan.machine.firmware is not Firmware.UEFI:
        return {}
    try:
        files = session.get(plan.found.ref, "layoutEx.file").get("layoutEx.file", ())
        file = next((one for one in files if one.type == "nvram"), None)
        if file is None:
            notes.append("the firmware variables are not captured: vSphere names no nvram file")
            return {}
        return {"nvram": folder.fetch(session, plan.datacenter, file.name, file.size)}
    except VBackupError as error:
        notes.append(f"the firmware variables are not captured: {error}")
        return {}
