"""What we keep of a machine, from the properties that vSphere tells of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyVmomi import vim

from vbackup_vsphere import devices, settings
from vbackup_vsphere.document import Allocation, Boot, Card, Cdrom, Config, Controller, Disk, Home, Network

PATHS = tuple(
    f"config.{path}"
    for path in (
        *("uuid", "instanceUuid", "guestId", "guestFullName", "version", "annotation", "firmware", "bootOptions"),
        *("hardware.numCPU", "hardware.numCoresPerSocket", "hardware.memoryMB", "hardware.device", "extraConfig"),
        *("cpuHotAddEnabled", "memoryHotAddEnabled", "nestedHVEnabled", "cpuAllocation", "memoryAllocation", "flags"),
        *("changeTrackingEnabled", "template", "files.vmPathName"),
    )
)
"""What is read of a machine."""


def datastore_of(file: str) -> str:
    """Return the datastore's name in ``[datastore] directory/file``."""
    found = re.match(r"\[([^\]]*)\]", file)
    return found[1] if found else ""


def read(values: Mapping[str, Any], plugged: Callable[[Any], Network], home: Home) -> Config:
    """Return what we keep of the properties `PATHS`; ``plugged`` names the network of a card's backing."""
    get = {path.removeprefix("config."): value for path, value in values.items()}.get
    hardware: Iterable[Any] = get("hardware.device") or ()
    flags, boot = get("flags"), get("bootOptions")
    return Config(
        uuid=get("uuid") or "",
        instance_uuid=get("instanceUuid") or "",
        guest_id=get("guestId") or "otherGuest64",
        guest_name=get("guestFullName") or "",
        version=get("version") or "",
        annotation=get("annotation") or "",
        cpus=get("hardware.numCPU") or 1,
        cores=get("hardware.numCoresPerSocket") or 1,
        memory=get("hardware.memoryMB") or 4,
        cpu_hot_add=bool(get("cpuHotAddEnabled")),
        memory_hot_add=bool(get("memoryHotAddEnabled")),
        nested=bool(get("nestedHVEnabled")),
        cpu=_allocation(get("cpuAllocation")),
        ram=_allocation(get("memoryAllocation")),
        efi=get("firmware") == "efi",
        secure_boot=bool(boot and boot.efiSecureBootEnabled),
        vbs=bool(flags and flags.vbsEnabled),
        iommu=bool(flags and flags.vvtdEnabled),
        tpm=any(devices.is_tpm(one) for one in hardware),
        encrypted=any(getattr(one.backing, "keyId", None) is not None for one in hardware),
        boot=_boot(boot),
        template=bool(get("template")),
        tracking=bool(get("changeTrackingEnabled")),
        controllers=tuple(_controllers(hardware)),
        disks=tuple(_disk(one) for one in hardware if isinstance(one, vim.vm.device.VirtualDisk)),
        cdroms=tuple(
            Cdrom(controller=one.controllerKey or 0, unit=one.unitNumber or 0)
            for one in hardware
            if isinstance(one, vim.vm.device.VirtualCdrom)
        ),
        cards=tuple(_cards(hardware, plugged)),
        usb=tuple(model for one in hardware if (model := devices.usb_model(one)) is not None),
        others=tuple(_label(one) for one in hardware if _is_lost(one)),
        extra=settings.kept(get("extraConfig") or ()),
        dropped=tuple(settings.dropped(get("extraConfig") or ()))[:256],
        home=home,
    )


def _controllers(hardware: Iterable[Any]) -> Iterable[Controller]:
    for one in hardware:
        model = devices.controller_model(one)
        if model is not None:
            yield Controller(key=one.key, model=model, number=one.busNumber, slot=devices.slot(one))


def _disk(one: Any) -> Disk:
    return Disk(
        key=one.key,
        controller=one.controllerKey or 0,
        unit=one.unitNumber or 0,
        size=size_of(one),
        file=getattr(one.backing, "fileName", None) or "",
    )


def size_of(disk: Any) -> int:
    """Return a ``VirtualDisk``'s size in bytes."""
    return int(disk.capacityInBytes or disk.capacityInKB * 1024)


def _cards(hardware: Iterable[Any], plugged: Callable[[Any], Network]) -> Iterable[Card]:
    for one in hardware:
        model = devices.card_model(one)
        if model is not None:
            yield Card(
                key=one.key,
                model=model,
                mac=one.macAddress or "",
                network=plugged(one.backing),
                connected=one.connectable is None or bool(one.connectable.startConnected),
                slot=devices.slot(one),
            )


def _is_lost(one: Any) -> bool:
    known = (vim.vm.device.VirtualDisk, vim.vm.device.VirtualCdrom, vim.vm.device.VirtualTPM)
    if isinstance(one, known) or devices.comes_by_itself(one):
        return False
    if isinstance(one, vim.vm.device.VirtualSriovEthernetCard):
        return True
    return not (devices.controller_model(one) or devices.card_model(one) or devices.usb_model(one))


def _label(one: Any) -> str:
    return (one.deviceInfo.label if one.deviceInfo else "") or type(one).__name__.rpartition(".")[2]


def _allocation(info: Any) -> Allocation:
    if info is None:
        return Allocation()
    shares = info.shares
    return Allocation(
        reservation=info.reservation or 0,
        limit=-1 if info.limit is None else info.limit,
        level=shares.level if shares else "normal",
        shares=shares.shares if shares else 0,
    )


def _boot(options: Any) -> Boot:
    if options is None:
        return Boot()
    order = [word for one in options.bootOrder or () if (word := _boot_word(one))]
    retry = options.bootRetryDelay if options.bootRetryEnabled else None
    return Boot(order=tuple(order), delay=options.bootDelay or 0, retry=retry)


def _boot_word(one: Any) -> str:
    kinds = vim.vm.BootOptions
    if isinstance(one, kinds.BootableDiskDevice):
        return f"disk:{one.deviceKey}"
    if isinstance(one, kinds.BootableEthernetDevice):
        return f"nic:{one.deviceKey}"
    if isinstance(one, kinds.BootableCdromDevice):
        return "cdrom"
    return "floppy" if isinstance(one, kinds.BootableFloppyDevice) else ""
