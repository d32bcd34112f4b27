"""Domain XML for a machine that comes from another hypervisor, from our description of it alone.

The devices are those that a system boots with that knows nothing of KVM: a SATA controller and an Intel network card. A
system that is known to boot with virtio gets virtio. https://libvirt.org/formatdomain.html
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element, SubElement

from vbackup.api import ConfigError, Firmware, Guest, MachineDescription, Nic
from vbackup_libvirt.capabilities import ARCH, CHIPSET, Capabilities
from vbackup_libvirt.placement import Place

VIRTIO = "virtio"
"""The family of drivers in `MachineDescription.drivers`."""

_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", re.IGNORECASE)
_MIB = 1 << 20
_LEAST_MEMORY = 128 * _MIB


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the machine is put into."""

    capabilities: Capabilities
    networks: Collection[str]
    """Those that libvirt has."""
    mapping: Mapping[str, str]
    """The option `networks`."""


def build(
    machine: MachineDescription,
    name: str,
    uuid: str,
    places: Sequence[Place],
    around: Surroundings,
    *,
    nvram: PurePosixPath,
    virtio: bool,
    keep_macs: bool,
) -> Element:
    """Return the document of a machine with disks at ``places``; `limits` tells what it cannot carry over.

    ``nvram`` is where the firmware's variables are going to be, if it has some.
    """
    domain = Element("domain", type=around.capabilities.domain_type)
    SubElement(domain, "name").text = name
    SubElement(domain, "uuid").text = uuid
    SubElement(domain, "memory", unit="b").text = str(machine.memory or _LEAST_MEMORY)
    SubElement(domain, "vcpu").text = str(machine.cpus)
    _boot_firmware(SubElement(domain, "os"), machine, around.capabilities, nvram)
    _processor(domain, machine, around.capabilities)
    _clock(domain, machine)
    devices = SubElement(domain, "devices")
    if around.capabilities.emulator:
        SubElement(devices, "emulator").text = around.capabilities.emulator
    _add_disks(devices, machine, places, virtio=virtio)
    for nic in machine.nics:
        _add_nic(devices, nic, around, virtio=virtio, keep_mac=keep_macs)
    if machine.tpm and around.capabilities.tpm:
        SubElement(SubElement(devices, "tpm", model="tpm-crb"), "backend", type="emulator", version="2.0")
    _add_basics(devices)
    return domain


def _boot_firmware(os: Element, machine: MachineDescription, offered: Capabilities, nvram: PurePosixPath) -> None:
    SubElement(os, "type", arch=ARCH, machine=CHIPSET).text = "hvm"
    if machine.firmware is not Firmware.UEFI:
        return
    os.set("firmware", "efi")
    wanted = "yes" if machine.secure_boot and offered.secure_boot else "no"
    features = SubElement(os, "firmware")
    if wanted == "yes":
        SubElement(os, "loader", secure="yes")
    for feature in ("enrolled-keys", "secure-boot"):
        SubElement(features, "feature", enabled=wanted, name=feature)
    SubElement(os, "nvram").text = str(nvram)


def _processor(domain: Element, machine: MachineDescription, offered: Capabilities) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    is_kvm = offered.domain_type == "kvm"
    if machine.firmware is Firmware.UEFI and machine.secure_boot and offered.secure_boot:
        SubElement(features, "smm", state="on")
    if machine.guest is Guest.WINDOWS and is_kvm:
        hyperv = SubElement(features, "hyperv")
        for name in ("relaxed", "vapic"):
            SubElement(hyperv, name, state="on")
        SubElement(hyperv, "spinlocks", state="on", retries="8191")
    cpu = SubElement(domain, "cpu", mode="host-model" if is_kvm else "maximum")
    sockets, rest = divmod(machine.cpus, machine.cores)
    if machine.cores > 1 and not rest:
        SubElement(cpu, "topology", sockets=str(sockets), cores=str(machine.cores), threads="1")


def _clock(domain: Element, machine: MachineDescription) -> None:
    clock = SubElement(domain, "clock", offset=machine.clock.value)
    SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    SubElement(clock, "timer", name="pit", tickpolicy="delay")
    SubElement(clock, "timer", name="hpet", present="no")
    if machine.guest is Guest.WINDOWS and domain.get("type") == "kvm":
        SubElement(clock, "timer", name="hypervclock", present="yes")


def _add_disks(devices: Element, machine: MachineDescription, places: Sequence[Place], *, virtio: bool) -> None:
    by_key = {disk.key: disk for disk in machine.disks}
    scsi = virtio and any(disk.controller == "virtio-scsi" for disk in machine.disks)
    bus, letter = ("scsi" if scsi else "virtio", "s" if scsi else "v") if virtio else ("sata", "s")
    if scsi:
        SubElement(devices, "controller", type="scsi", model="virtio-scsi")
    orders = {p.key: d.boot_order for p in places if (d := by_key.get(p.key)) and d.boot_order}  # from 1
    if not orders and places and not any(nic.boot_order for nic in machine.nics):
        orders = {places[0].key: 1}
    for number, place in enumerate(places):
        disk = SubElement(devices, "disk", type="block" if place.is_device else "file", device="disk")
        SubElement(disk, "driver", name="qemu", type=place.format, discard="unmap")
        SubElement(disk, "source", {"dev" if place.is_device else "file": str(place.named)})
        SubElement(disk, "target", dev=f"{letter}d{_letters(number)}", bus=bus)
        if place.key in orders:
            SubElement(disk, "boot", order=str(orders[place.key]))


def _letters(number: int) -> str:
    """Return a, b ... z, aa, ab ... as Linux names disks."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def _add_nic(devices: Element, nic: Nic, around: Surroundings, *, virtio: bool, keep_mac: bool) -> None:
    kind, network = backend(nic, around)
    interface = SubElement(devices, "interface", type=kind)
    if keep_mac and is_mac(nic.mac):
        SubElement(interface, "mac", address=nic.mac.lower())
    if network:
        SubElement(interface, "source", {kind: network})
    SubElement(interface, "model", type="virtio" if virtio else "e1000e")
    if not nic.connected or not network:
        SubElement(interface, "link", state="down")
    if nic.boot_order:
        SubElement(interface, "boot", order=str(nic.boot_order))


def is_mac(text: str) -> bool:
    """Whether it is the address of one card, and not of many."""
    return _MAC.fullmatch(text) is not None


def backend(nic: Nic, around: Surroundings) -> tuple[str, str]:
    """Return the type and the name of what a card is plugged into: ``network`` or ``bridge``; ``user`` if unknown.

    Raises: `ConfigError` when the mapping leads to a network that is not there.
    """
    wanted = around.mapping.get(nic.network, nic.network)
    # Only the option may lead to a bridge of the host: the name of a network is what a restore point says.
    if nic.network in around.mapping and wanted.startswith("bridge:"):
        return "bridge", wanted.removeprefix("bridge:")
    if wanted and wanted in around.networks:
        return "network", wanted
    if nic.network in around.mapping:
        there = ", ".join(sorted(around.networks)) or "none"
        raise ConfigError(
            f"networks: {nic.network!r} is mapped to {wanted!r}, which libvirt does not have",
            hint=f"its networks: {there}; a bridge of the host is bridge:NAME",
        )
    return "user", ""


def _add_basics(devices: Element) -> None:
    SubElement(devices, "controller", type="usb", model="qemu-xhci")
    SubElement(devices, "input", type="tablet", bus="usb")
    SubElement(devices, "serial", type="pty")
    SubElement(devices, "console", type="pty")
    channel = SubElement(devices, "channel", type="unix")
    SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    SubElement(devices, "graphics", type="vnc", autoport="yes", listen="127.0.0.1")
    SubElement(SubElement(devices, "video"), "model", type="vga")
    SubElement(SubElement(devices, "rng", model="virtio"), "backend", model="random").text = "/dev/urandom"
    SubElement(devices, "memballoon", model="virtio")


def limits(machine: MachineDescription, around: Surroundings, *, has_nvram: bool, keep_macs: bool) -> Iterator[str]:
    """Yield notes on what a machine of another hypervisor does not take along."""
    offered = around.capabilities
    if offered.domain_type != "kvm":
        yield "this host has no KVM: the machine is emulated, which is slow"
    if machine.firmware is Firmware.UEFI:
        kept = "firmware variables" if has_nvram else "boot entries"
        yield f"its {kept} are not carried over: it boots what its disks offer (EFI/BOOT/BOOTX64.EFI)"
        if machine.secure_boot and not offered.secure_boot:
            yield "Secure Boot is off: this host has no firmware with the keys for it (on Debian: the package ovmf)"
    if machine.tpm:
        yield (
            "its TPM is a new one: what was sealed by the old one, such as a BitLocker key, needs its recovery key"
            if offered.tpm
            else "it has no TPM any more: this host has no swtpm"
        )
    for number, nic in enumerate(machine.nics, 1):
        if keep_macs and not is_mac(nic.mac):
            yield f"network card {number} gets a new MAC: {nic.mac or 'none'} was its old one"
        if not backend(nic, around)[1]:
            yield (
                f"network card {number} ({nic.mac}) is unplugged: nothing says which network here is "
                f"{nic.network or 'its own'!r}; `networks` of the hypervisor maps them"
            )
