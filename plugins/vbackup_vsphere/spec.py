"""A `vim.vm.ConfigSpec` for a configuration of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyVmomi import vim

from vbackup_vsphere import devices, settings
from vbackup_vsphere.document import Allocation, Card, Config, Controller, Disk

UNIT = 1024
"""Disks have a multiple of so many bytes: ``capacityInKB`` must say the same as ``capacityInBytes``."""

_device = vim.vm.device


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the machine is going to be."""

    name: str
    uuid: str
    instance_uuid: str
    keeps_macs: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made."""

    config: Config
    """Only what it may have; see `vbackup_vsphere.goal`."""
    identity: Identity
    version: str
    datastore: str
    networks: Mapping[int, Any]
    """The backing of each card, by its key."""
    token: str
    """What marks the machine as one that is not finished."""


def rounded(size: int) -> int:
    """Return the size in bytes that a disk of ``size`` bytes gets."""
    return -(-size // UNIT) * UNIT


def mac_type(mac: str) -> str:
    """Return the ``addressType`` with which vSphere takes a MAC as it is.

    The ranges are those of "MAC Address Generation" in vSphere Networking: 00:0c:29 is made by hosts, 00:50:56 above
    3f by vCenters, and a manual one of these is refused when the machine starts.
    """
    parts = mac.lower().split(":")
    if parts[:3] == ["00", "0c", "29"]:
        return "generated"
    return "assigned" if parts[:3] == ["00", "50", "56"] and int(parts[3], 16) > 0x3F else "manual"


def build(order: Order) -> Any:
    """Return the specification of a new machine, without changed-block tracking, which is for later."""
    config, identity = order.config, order.identity
    extra = settings.allowed(config.extra) | {settings.MARK: order.token}
    spec = vim.vm.ConfigSpec(
        name=identity.name,
        uuid=identity.uuid,
        instanceUuid=identity.instance_uuid,
        guestId=config.guest_id,
        annotation=config.annotation,
        numCPUs=config.cpus,
        numCoresPerSocket=config.cores,
        memoryMB=config.memory,
        cpuHotAddEnabled=config.cpu_hot_add,
        memoryHotAddEnabled=config.memory_hot_add,
        firmware="efi" if config.efi else "bios",
        files=vim.vm.FileInfo(vmPathName=f"[{order.datastore}]"),
        deviceChange=list(_changes(order)),
        extraConfig=[vim.option.OptionValue(key=key, value=value) for key, value in sorted(extra.items())],
    )
    if order.version:
        spec.version = order.version
    if config.nested:
        spec.nestedHVEnabled = True
    if config.vbs or config.iommu:
        spec.flags = vim.vm.FlagInfo(vbsEnabled=config.vbs, vvtdEnabled=config.iommu)
    spec.cpuAllocation = _allocation(config.cpu)
    spec.memoryAllocation = _allocation(config.ram)
    spec.bootOptions = boot_options(config, {})
    return spec


def _allocation(wanted: Allocation) -> Any:
    shares = vim.SharesInfo(level=wanted.level, shares=wanted.shares)
    return vim.ResourceAllocationInfo(reservation=wanted.reservation, limit=wanted.limit, shares=shares)


def boot_options(config: Config, keys: Mapping[int, int]) -> Any:
    """Return the boot options of a machine whose devices have got other ``keys`` than in its configuration.

    A machine that is yet to be made has no keys, and so no order.
    """
    options: Any = vim.vm.BootOptions(bootDelay=config.boot.delay, bootRetryEnabled=config.boot.retry is not None)
    if config.boot.retry is not None:
        options.bootRetryDelay = config.boot.retry
    if config.efi:
        options.efiSecureBootEnabled = config.secure_boot
    if keys:
        options.bootOrder = list(_boot_order(config, keys))
    return options


def _boot_order(config: Config, keys: Mapping[int, int]) -> Iterator[Any]:
    kinds: dict[str, Any] = {
        "disk": vim.vm.BootOptions.BootableDiskDevice,
        "nic": vim.vm.BootOptions.BootableEthernetDevice,
    }
    for word in config.boot.order:
        kind, _, key = word.partition(":")
        if kind == "cdrom":
            yield vim.vm.BootOptions.BootableCdromDevice()
        elif kind in kinds and int(key) in keys:
            yield kinds[kind](deviceKey=keys[int(key)])


def _changes(order: Order) -> Iterator[Any]:
    """Yield the devices. Keys are negative until the host gives its own, but for IDE, which every machine has."""
    config = order.config
    keys = {one.key: _controller_key(one, index) for index, one in enumerate(config.controllers)}
    for controller in config.controllers:
        yield _add(_controller(controller, keys[controller.key]))
    for index, disk in enumerate(config.disks):
        change = _add(_disk(disk, -2000 - index, keys[disk.controller], order.datastore))
        change.fileOperation = _device.VirtualDeviceSpec.FileOperation.create
        yield change
    for index, cdrom in enumerate(config.cdroms):
        backing = _device.VirtualCdrom.RemotePassthroughBackingInfo(deviceName="", exclusive=False)
        connectable = _device.VirtualDevice.ConnectInfo(startConnected=False, connected=False, allowGuestControl=True)
        yield _add(
            _device.VirtualCdrom(
                key=-3000 - index,
                controllerKey=keys[cdrom.controller],
                unitNumber=cdrom.unit,
                backing=backing,
                connectable=connectable,
            )
        )
    for index, card in enumerate(config.cards):
        yield _add(_card(order, card, -4000 - index))
    for index, model in enumerate(config.usb):
        yield _add(devices.USB[model](key=-5000 - index))


def _add(device: Any) -> Any:
    return _device.VirtualDeviceSpec(operation=_device.VirtualDeviceSpec.Operation.add, device=device)


def _controller_key(controller: Controller, index: int) -> int:
    return 200 + controller.number if controller.model == "ide" else -1000 - index


def _controller(controller: Controller, key: int) -> Any:
    kind = devices.CONTROLLERS[controller.model]
    made = kind.make(key=key, busNumber=controller.number)
    if kind.bus == "scsi":
        made.sharedBus = _device.VirtualSCSIController.Sharing.noSharing
    _put_slot(made, controller.slot)
    return made


def _disk(disk: Disk, key: int, controller: int, datastore: str) -> Any:
    size = rounded(disk.size)
    backing = _device.VirtualDisk.FlatVer2BackingInfo(
        fileName=f"[{datastore}]", diskMode="persistent", thinProvisioned=True
    )
    return _device.VirtualDisk(
        key=key,
        controllerKey=controller,
        unitNumber=disk.unit,
        capacityInBytes=size,
        capacityInKB=size // 1024,
        backing=backing,
    )


def _card(order: Order, card: Card, key: int) -> Any:
    made = devices.CARDS[card.model](key=key, backing=order.networks[card.key])
    made.connectable = _device.VirtualDevice.ConnectInfo(
        startConnected=card.connected, connected=card.connected, allowGuestControl=True
    )
    if order.identity.keeps_macs and card.mac:
        made.macAddress, made.addressType = card.mac, mac_type(card.mac)
    _put_slot(made, card.slot)
    return made


def _put_slot(device: Any, slot: int | None) -> None:
    if slot is not None:
        device.slotInfo = _device.VirtualDevice.PciBusSlotInfo(pciSlotNumber=slot)
