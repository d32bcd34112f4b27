"""Domain XML, told in our own description of a machine: what another hypervisor needs to build it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from xml.etree.ElementTree import Element

from vbackup.api import (
    ClockOffset,
    DiskDescription,
    Firmware,
    Guest,
    MachineDescription,
    NativeDocument,
    Nic,
)
from vbackup_libvirt.document import KIND, Disk, attribute, disks, memory, nvram

_LIBOSINFO = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
_LINUX = re.compile(
    r"//(www\.)?(almalinux|alpinelinux|altlinux|archlinux|asianux|centos|cirros|clearlinux|debian|endlessos|fedoraproject"
    r"|gentoo|gnome|guix|kde|mageia|manjaro|nixos|opensuse|oracle\.com/(ol|oel)|pureos|redhat|rockylinux|scientificlinux"
    r"|slackware|slitaz|suse|system76|ubuntu|voidlinux)|linux"
)
"""The identifiers of osinfo-db: ``http://debian.org/debian/12``."""


def describe(domain: Element, text: str, sizes: Mapping[str, int]) -> MachineDescription:
    """Return our description of a machine; ``sizes`` are those of the disks that were asked for."""
    loader = domain.find("os/loader")
    uefi = bool(nvram(domain)) or "efi" in {domain.get("firmware"), attribute(domain, "os", "firmware")}
    return MachineDescription(
        name=domain.findtext("name") or "",
        id=domain.findtext("uuid") or "",
        arch=attribute(domain, "os/type", "arch") or "x86_64",
        cpus=int(domain.findtext("vcpu") or 1),
        cores=_cores(domain),
        memory=memory(domain),
        firmware=Firmware.UEFI if uefi else Firmware.BIOS,
        secure_boot=loader is not None and loader.get("secure") == "yes",
        tpm=domain.find("devices/tpm") is not None,
        clock=ClockOffset.LOCALTIME if attribute(domain, "clock", "offset") == "localtime" else ClockOffset.UTC,
        guest=_guest(domain),
        drivers=("virtio",) if _boots_with_virtio(domain) else (),
        disks=tuple(_describe_disk(disk, sizes) for disk in disks(domain) if not disk.is_drive),
        nics=tuple(_nic(element) for element in domain.iterfind("devices/interface")),
        native=NativeDocument(kind=KIND, text=text),
    )


def _describe_disk(disk: Disk, sizes: Mapping[str, int]) -> DiskDescription:
    return DiskDescription(
        key=disk.key,
        size=sizes.get(disk.key, 0),
        format=disk.format,
        bus=disk.bus,
        controller=disk.controller,
        boot_order=disk.boot_order,
        source=disk.source,
    )


def _nic(element: Element) -> Nic:
    network = next((v for a in ("network", "bridge", "dev") if (v := attribute(element, "source", a))), "")
    order = attribute(element, "boot", "order")
    return Nic(
        mac=attribute(element, "mac", "address"),
        model=attribute(element, "model", "type"),
        network=network,
        boot_order=int(order) if order else None,
        connected=attribute(element, "link", "state") != "down",
    )


def _cores(domain: Element) -> int:
    """Return the cores of a socket; what are dies and threads here are cores elsewhere."""
    topology = domain.find("cpu/topology")
    if topology is None:
        return 1
    return prod(max(1, int(topology.get(part, "1"))) for part in ("dies", "cores", "threads"))


def _guest(domain: Element) -> Guest:
    """Return the family of the system, by what virt-install or virt-manager was told of it."""
    element = domain.find(f"metadata/{{{_LIBOSINFO}}}libosinfo/{{{_LIBOSINFO}}}os")
    system = "" if element is None else element.get("id", "")
    if "microsoft.com/" in system:
        return Guest.WINDOWS
    if _LINUX.search(system):
        return Guest.LINUX
    # Enlightenments are switched on for Windows only; "no hint" must stay unknown, since there are other systems.
    return Guest.WINDOWS if not system and domain.find("features/hyperv/relaxed") is not None else Guest.UNKNOWN


def _boots_with_virtio(domain: Element) -> bool:
    """Whether the disk that the machine boots from is a virtio device."""
    bootable = [disk for disk in disks(domain) if disk.is_written]
    first = min(bootable, key=lambda disk: disk.boot_order or len(bootable) + 1, default=None)
    return first is not None and (first.bus == "virtio" or first.controller == "virtio-scsi")
