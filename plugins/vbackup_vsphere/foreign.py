"""A machine of another hypervisor as a configuration for vSphere: with devices that its guest can start from anywhere.

VMware's own devices are faster, but a guest that has never seen them may not find its disk: they are used only where
the guest is known to have started with them before.
"""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence

from vbackup.api import (
    DiskDescription,
    Firmware,
    Guest,
    MachineDescription,
    Nic,
    RestoreDisk,
    Unsupported,
)
from vbackup_vsphere import devices
from vbackup_vsphere.describe import clock_of
from vbackup_vsphere.document import DRIVERS, Boot, Card, Config, Controller, Disk, Network, Wanted

VMWARE = "vmware"

_GUESTS = {
    Guest.LINUX: "otherLinux64Guest",
    Guest.WINDOWS: "windows9Server64Guest",
    Guest.UNKNOWN: "otherGuest64",
}
"""Identifiers that every release since 6.0 knows. The last one of Windows is Server 2016 and what came after."""

_MEMORY_STEP = 4  # MiB
_USUAL_MEMORY = 2048  # MiB
_CONTROLLERS = 4
_CARDS = 10
_CARD_KEY = 4000


def convert(machine: MachineDescription, disks: Sequence[RestoreDisk], files: Mapping[str, bytes]) -> Wanted:
    """Return the configuration for ``machine`` with ``disks``. Raises: `Unsupported`."""
    if machine.arch not in {"x86_64", "i686"}:
        raise Unsupported(f"{machine.name} has a processor of type {machine.arch}, which vSphere does not have")
    notes = list(_notes(machine, disks, files))
    model = "pvscsi" if VMWARE in machine.drivers else "ahci"
    ordered = _ordered(machine, disks)
    kind = devices.CONTROLLERS[model]
    units = [unit for unit in range(kind.units) if unit != kind.reserved]
    if len(ordered) > _CONTROLLERS * len(units):
        raise Unsupported(f"{machine.name} has {len(ordered)} disks; vSphere takes {_CONTROLLERS * len(units)} of them")
    base = 1000 if kind.bus == "scsi" else 15000
    controllers = [
        Controller.model_validate({"key": base + number, "model": model, "number": number})
        for number in range(-(-len(ordered) // len(units)))
    ]
    made, keys = [], {}
    for index, disk in enumerate(ordered):
        number, slot = divmod(index, len(units))
        keys[disk.key] = 2000 + index
        made.append(Disk(key=keys[disk.key], controller=base + number, unit=units[slot], size=disk.size))
    notes += _moved(machine, ordered, kind.bus, model)
    cards = [_card(nic, index, machine) for index, nic in enumerate(machine.nics[:_CARDS])]
    config = Config(
        uuid=_uuid(machine.id),
        instance_uuid=_uuid(machine.id),
        guest_id=_GUESTS[machine.guest],
        cpus=machine.cpus,
        cores=_cores(machine, notes),
        memory=_memory(machine, notes),
        efi=machine.firmware is Firmware.UEFI,
        secure_boot=machine.secure_boot and machine.firmware is Firmware.UEFI,
        boot=Boot(order=tuple(_boot_order(machine, keys))),
        controllers=tuple(controllers),
        disks=tuple(made),
        cards=tuple(cards),
        extra=_drivers(machine),
    )
    return Wanted(config, keys, notes)


def _uuid(text: str) -> str:
    try:
        return str(uuids.UUID(text))
    except ValueError:
        return str(uuids.uuid4())


def _ordered(machine: MachineDescription, disks: Sequence[RestoreDisk]) -> list[RestoreDisk]:
    """Return the disks as a firmware without a boot order tries them: those that boot first."""
    orders = {disk.key: disk.boot_order for disk in machine.disks}

    def rank(disk: RestoreDisk) -> int:
        order = orders.get(disk.key)
        return 1 << 16 if order is None else order

    return sorted(disks, key=rank)


def _card(nic: Nic, index: int, machine: MachineDescription) -> Card:
    return Card(
        key=_CARD_KEY + index,
        model="vmxnet3" if VMWARE in machine.drivers else "e1000e",
        mac=nic.mac.lower(),
        network=Network(name=nic.network),
        connected=nic.connected,
    )


def _cores(machine: MachineDescription, notes: list[str]) -> int:
    if machine.cpus % machine.cores:
        notes.append(f"it has sockets of one core: {machine.cpus} processors are no multiple of {machine.cores} cores")
        return 1
    return machine.cores


def _memory(machine: MachineDescription, notes: list[str]) -> int:
    """Return the memory in MiB; vSphere wants a multiple of 4."""
    if not machine.memory:
        notes.append(f"its memory is {_USUAL_MEMORY} MiB: what it had is not known")
        return _USUAL_MEMORY
    step = _MEMORY_STEP << 20
    wanted = max(-(-machine.memory // step) * _MEMORY_STEP, _MEMORY_STEP)
    if wanted << 20 != machine.memory:
        notes.append(
            f"its memory is {wanted} MiB: vSphere has multiples of {_MEMORY_STEP} MiB, it had {machine.memory} B"
        )
    return wanted


def _boot_order(machine: MachineDescription, keys: Mapping[str, int]) -> list[str]:
    words = [(d.boot_order, f"disk:{keys[d.key]}") for d in machine.disks if d.boot_order and d.key in keys]
    words += [(n.boot_order, f"nic:{_CARD_KEY + i}") for i, n in enumerate(machine.nics[:_CARDS]) if n.boot_order]
    return [word for _, word in sorted(words)]


def _drivers(machine: MachineDescription) -> dict[str, str]:
    others = sorted(set(machine.drivers) - {VMWARE})
    return {DRIVERS: ",".join(others)} if others else {}


def _moved(machine: MachineDescription, disks: Sequence[RestoreDisk], bus: str, controller: str) -> Iterator[str]:
    """Yield what the guest will find elsewhere."""
    described: dict[str, DiskDescription] = {disk.key: disk for disk in machine.disks}
    others = sorted(disk.key for disk in disks if disk.key in described and described[disk.key].bus != bus)
    if others:
        yield f"disk {', '.join(others)}: on {controller} ({bus}) now; it was on {_buses(described, others)}"
    model = "vmxnet3" if VMWARE in machine.drivers else "e1000e"
    changed = sorted({nic.model for nic in machine.nics if nic.model != model})
    if changed:
        yield f"its network cards are {model} now; they were {', '.join(one or 'unnamed' for one in changed)}"
    if len(machine.nics) > _CARDS:
        yield f"it has {_CARDS} of its {len(machine.nics)} network cards: vSphere takes no more"


def _buses(described: Mapping[str, DiskDescription], keys: Sequence[str]) -> str:
    return ", ".join(sorted({described[key].bus or "an unnamed bus" for key in keys}))


def _notes(machine: MachineDescription, disks: Sequence[RestoreDisk], files: Mapping[str, bytes]) -> Iterator[str]:
    if machine.firmware is Firmware.UEFI:
        yield (
            "its firmware variables are another firmware's, and are left out: it starts EFI/BOOT/BOOTX64.EFI of its "
            "first disk, until its boot entry is made again"
        )
    if machine.secure_boot:
        yield "Secure Boot is on with VMware's keys: keys of its own that were enrolled are not there"
    if machine.tpm:
        yield "it has no TPM: what the old one has sealed (BitLocker, LUKS) asks for its recovery key"
    if machine.clock is not clock_of(machine.guest):
        yield f"its clock shows {clock_of(machine.guest)}, which VMware decides by the guest; it showed {machine.clock}"
    if machine.guest is Guest.WINDOWS and VMWARE not in machine.drivers:
        yield (
            "Windows starts from SATA only if its driver storahci is switched on: if it does not, start it in safe "
            "mode once"
        )
    there = {disk.key for disk in disks}
    gone = sorted(disk.key for disk in machine.disks if disk.key not in there)
    if gone:
        yield f"disk {', '.join(gone)} is not in the restore point; the machine is without it"
    if set(files) - {"nvram", "tpm"}:
        yield f"left out: {', '.join(sorted(set(files) - {'nvram', 'tpm'}))}"
