"""Disks that an old machine has and a restore point has not: the new machine gets them as they are.

Their files are never written to, and never go with a machine that is removed: whoever is removed lets go of them first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vbackup_vsphere import devices
from vbackup_vsphere.devices import Place
from vbackup_vsphere.document import Config

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session

_device = vim.vm.device
_DETAILS = ("diskMode", "sharing", "compatibilityMode")


def can_go_over(config: Config, place: Place) -> bool:
    """Whether a machine of that configuration has a controller for a disk at ``place``."""
    return any((devices.bus(one), one.number) == place[:2] for one in config.controllers)


def additions(session: Session, vm: Any, disks: Mapping[Place, Any]) -> list[Any]:
    """Return the changes that plug ``disks`` of another machine into ``vm``, where they were."""
    hardware = session.get(vm, "config.hardware.device").get("config.hardware.device", ())
    controllers = {
        (devices.CONTROLLERS[model].bus, one.busNumber): one.key
        for one in hardware
        if (model := devices.controller_model(one)) is not None
    }
    return [
        _device.VirtualDeviceSpec(
            operation=_device.VirtualDeviceSpec.Operation.add,
            device=_device.VirtualDisk(
                key=-6000 - index,
                controllerKey=controllers[place.bus, place.number],
                unitNumber=place.unit,
                capacityInKB=disk.capacityInKB,
                capacityInBytes=disk.capacityInBytes,
                backing=_backing(disk.backing),
            ),
        )
        for index, (place, disk) in enumerate(sorted(disks.items(), key=lambda item: item[0]))
    ]


def _backing(old: Any) -> Any:
    """Return what names the file of ``old``, without what only its host has noted."""
    new = type(old)(fileName=old.fileName)
    for detail in _DETAILS:
        value = getattr(old, detail, None)
        if value:
            setattr(new, detail, value)
    return new


def let_go(session: Session, vm: Any, other: Any, what: str) -> None:
    """Unplug from ``vm`` the disks that ``other`` has, too, and leave their files."""
    theirs = {one.backing.fileName for one in _disks(session, other)}
    shared = [one for one in _disks(session, vm) if one.backing.fileName in theirs]
    if shared:
        remove = _device.VirtualDeviceSpec.Operation.remove
        changes = [_device.VirtualDeviceSpec(operation=remove, device=one) for one in shared]
        spec = vim.vm.ConfigSpec(deviceChange=changes)
        session.wait(session.call(what, lambda: vm.ReconfigVM_Task(spec)), what)


def _disks(session: Session, vm: Any) -> list[Any]:
    hardware = session.get(vm, "config.hardware.device").get("config.hardware.device", ())
    return [one for one in hardware if isinstance(one, _device.VirtualDisk) and getattr(one.backing, "fileName", None)]
