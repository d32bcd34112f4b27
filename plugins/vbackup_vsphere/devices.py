"""Which of VMware's device classes is which model, and how many disks a controller takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pyVmomi import vim

from vbackup_vsphere.document import Config, Controller, Disk

Model = Literal["pvscsi", "lsilogic", "lsisas", "buslogic", "ahci", "ide", "nvme"]
CardModel = Literal["vmxnet3", "vmxnet2", "vmxnet", "e1000e", "e1000", "pcnet32"]

_device = vim.vm.device


class Place(NamedTuple):
    """Where a disk is plugged in, which is the same on every host, while device keys need not be."""

    bus: str
    number: int
    """That of the controller on its bus."""
    unit: int

    def __str__(self) -> str:
        return f"{self.bus}{self.number}:{self.unit}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A model of controllers."""

    bus: str
    make: Any
    """The class in vSphere."""
    units: int
    """How many disks it takes."""
    reserved: int | None = None
    """The unit that it has itself."""


CONTROLLERS: dict[str, Kind] = {
    "pvscsi": Kind("scsi", _device.ParaVirtualSCSIController, 16, 7),
    "lsilogic": Kind("scsi", _device.VirtualLsiLogicController, 16, 7),
    "lsisas": Kind("scsi", _device.VirtualLsiLogicSASController, 16, 7),
    "buslogic": Kind("scsi", _device.VirtualBusLogicController, 16, 7),
    "ahci": Kind("sata", _device.VirtualAHCIController, 30),
    "nvme": Kind("nvme", _device.VirtualNVMEController, 15),
    "ide": Kind("ide", _device.VirtualIDEController, 2),
}

CARDS: dict[str, Any] = {
    "vmxnet3": _device.VirtualVmxnet3,
    "vmxnet2": _device.VirtualVmxnet2,
    "vmxnet": _device.VirtualVmxnet,
    "e1000e": _device.VirtualE1000e,
    "e1000": _device.VirtualE1000,
    "pcnet32": _device.VirtualPCNet32,
}

USB: dict[str, Any] = {"uhci": _device.VirtualUSBController, "xhci": _device.VirtualUSBXHCIController}

_EVERY_MACHINE = (
    _device.VirtualPCIController,
    _device.VirtualPS2Controller,
    _device.VirtualSIOController,
    _device.VirtualKeyboard,
    _device.VirtualPointingDevice,
    _device.VirtualVideoCard,
    _device.VirtualVMCIDevice,
    _device.VirtualFloppy,
)


def controller_model(device: Any) -> Model | None:
    """Return which model of disk controller a device is."""
    found: dict[Any, Model] = {kind.make: model for model, kind in CONTROLLERS.items()}  # type: ignore[misc]
    return next((found[one] for one in type(device).__mro__ if one in found), None)


def card_model(device: Any) -> CardModel | None:
    """Return which model of network card a device is; one that is passed through has become a vmxnet3."""
    if not isinstance(device, _device.VirtualEthernetCard):
        return None
    found: dict[Any, CardModel] = {make: model for model, make in CARDS.items()}  # type: ignore[misc]
    return next((found[one] for one in type(device).__mro__ if one in found), "vmxnet3")


def usb_model(device: Any) -> Literal["uhci", "xhci"] | None:
    """Return which model of USB controller a device is."""
    if isinstance(device, _device.VirtualUSBXHCIController):
        return "xhci"
    return "uhci" if isinstance(device, _device.VirtualUSBController) else None


def comes_by_itself(device: Any) -> bool:
    """Whether every machine has such a device, without anybody adding it."""
    return isinstance(device, _EVERY_MACHINE)


def is_tpm(device: Any) -> bool:
    """Whether a device is a virtual TPM."""
    return isinstance(device, _device.VirtualTPM)


def slot(device: Any) -> int | None:
    """Return a device's PCI slot."""
    info = device.slotInfo
    return info.pciSlotNumber if isinstance(info, _device.VirtualDevice.PciBusSlotInfo) else None


def bus(controller: Controller) -> str:
    """Return a controller's bus: scsi, sata, ide, nvme."""
    return CONTROLLERS[controller.model].bus


def place(config: Config, disk: Disk) -> Place | None:
    """Return where a disk is plugged in; None where the configuration does not tell."""
    found = config.controller(disk.controller)
    return None if found is None else Place(bus(found), found.number, disk.unit)


def disk_places(hardware: Iterable[Any]) -> dict[Place, Any]:
    """Return the ``VirtualDisk`` of a machine's devices by where they are plugged in."""
    by_key = {one.key: one for one in hardware}
    found = {}
    for one in by_key.values():
        controller: Any = by_key.get(one.controllerKey)
        model = controller_model(controller)
        if model is not None and isinstance(one, _device.VirtualDisk):
            found[Place(CONTROLLERS[model].bus, controller.busNumber, one.unitNumber or 0)] = one
    return found
