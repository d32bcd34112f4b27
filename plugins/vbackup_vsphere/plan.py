"""What is going to be captured of a machine, decided before anything is made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pyVmomi import vim

from vbackup.api import CaptureRequest, MachineDescription, Unavailable, Unsupported
from vbackup.api.clock import now
from vbackup_undo.maker import Maker
from vbackup_vsphere import describe, hardware, places, snapshot
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.inventory import Found
from vbackup_vsphere.session import Session
from vbackup_vsphere.site import Site
from vbackup_vsphere.tracking import Since

_POWER = ("runtime.powerState", "runtime.cleanPowerOff", "guest.toolsRunningStatus")
_PATHS = (
    *_POWER,
    "config.hardware.device",
    "config.changeTrackingEnabled",
    "config.changeVersion",
    "config.version",
    "capability.changeTrackingSupported",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to be captured of a machine."""

    found: Found
    request: CaptureRequest
    machine: MachineDescription
    disks: tuple[VmDisk, ...]
    facts: dict[str, Any] = field(repr=False)
    """Leaf properties of the machine."""
    snapshots: int
    """How many it has."""
    datacenter: str
    since: Since | None
    maker: Maker
    notes: tuple[str, ...]

    @property
    def running(self) -> bool:
        """Whether the machine is on."""
        return bool(self.facts.get("runtime.powerState") == vim.VirtualMachine.PowerState.poweredOn)

    @property
    def tools(self) -> bool:
        """Whether VMware Tools run in the guest."""
        return self.facts.get("guest.toolsRunningStatus") == "guestToolsRunning"

    def now(self, session: Session) -> Plan:
        """Return it with what the machine does now: a group's moment may be long after it was made."""
        power = session.get(self.found.ref, *_POWER)
        if "runtime.powerState" not in power:
            raise Unavailable(f"{self.found.name} cannot be captured: vSphere does not tell now whether it is on")
        lasting = {path: value for path, value in self.facts.items() if path not in _POWER}
        return replace(self, facts=lasting | power)


def plan(site: Site, found: Found, request: CaptureRequest) -> Plan:
    """Decide what is captured. Raises: `Unsupported` when there is nothing."""
    session = site.session
    facts = session.get(found.ref, *_PATHS)
    if "config.hardware.device" not in facts:
        raise Unavailable(f"{found.name} cannot be captured: its configuration cannot be read now")
    disks, excluded, notes = [], [], []
    for disk in hardware.disks(session, facts["config.hardware.device"]):
        if disk.key in request.exclude:
            excluded.append(disk)
        elif disk.left_out is not None:
            notes.append(f"disk {disk.key} ({disk.label}) is not captured: it is {disk.left_out}")
        else:
            disks.append(disk)
    if not disks:
        notes += [f"disk {disk.key} is left out, as the job wants it (`exclude_disks`)" for disk in excluded]
        raise Unsupported(f"{found.name} has no disk that can be captured: {'; '.join(notes) or 'it has no disks'}")
    return Plan(
        found=found,
        request=request,
        machine=describe.describe(session, found.ref).model_copy(update={"name": found.name}),
        disks=tuple(disks),
        facts=facts,
        snapshots=len(snapshot.of_machine(session, found.ref)),
        datacenter=places.path_of(session, places.above(session, found.ref, vim.Datacenter)).strip("/"),
        since=Since.parse(request.since, request.owner),
        maker=Maker.here(request.owner, int(now().timestamp())),
        notes=tuple(notes),
    )
