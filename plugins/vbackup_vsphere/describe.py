"""A vSphere machine as we describe it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vbackup.api import (
    ClockOffset,
    DiskDescription,
    Firmware,
    Guest,
    MachineDescription,
    NativeDocument,
    Nic,
    NotFound,
    Unavailable,
)
from vbackup_vsphere import configuration, devices, document, places, settings
from vbackup_vsphere.document import Card, Config, Disk, Home, Network
from vbackup_vsphere.properties import moid

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session

_LINUX = re.compile(
    r"(other\d*x?)?linux|debian|ubuntu|rhel|redhat|centos|sles|sled|suse|opensuse|fedora|oracle|rocky|alma|amazon|coreos"
    r"|crx|photon|vmwarephoton|asianux|mandr|turbolinux|caldera|genericlinux|other\d+x(linux)?|flatcar|kylin|miracle|pardus",
    re.IGNORECASE,
)


def describe(session: Session, vm: Any) -> MachineDescription:
    """Return the machine ``vm`` as it is.

    Raises: `NotFound`; `Unavailable` when its configuration cannot be read now (the host is away).
    """
    now = session.get(vm, "name", "parent", "resourcePool", "runtime.host")
    if "name" not in now:
        raise NotFound(f"{session.alias}: the machine {moid(vm)} is gone")
    values = session.get(vm, *configuration.PATHS)
    if "config.hardware.device" not in values:
        raise Unavailable(f"{session.alias}: the configuration of {now['name']} cannot be read now")
    home = Home(
        folder=places.path_of(session, now.get("parent")),
        pool=places.path_of(session, now.get("resourcePool") or now.get("runtime.host")),  # templates have no pool
        datastore=configuration.datastore_of(values.get("config.files.vmPathName", "")),
    )
    config = configuration.read(values, lambda backing: network(session, backing), home)
    return description(now["name"], config)


def network(session: Session, backing: Any) -> Network:
    """Return the network that a card's backing names. One that is not there any more has an empty name."""
    card = vim.vm.device.VirtualEthernetCard
    if isinstance(backing, card.DistributedVirtualPortBackingInfo):
        key = backing.port.portgroupKey
        known = session.list(vim.dvs.DistributedVirtualPortgroup, "name", "key")
        return Network(kind="distributed", name=next((v["name"] for _, v in known if v.get("key") == key), ""))
    if isinstance(backing, card.OpaqueNetworkBackingInfo):
        opaque = session.list(vim.OpaqueNetwork, "name", "summary")
        found = (v["name"] for _, v in opaque if v["summary"].opaqueNetworkId == backing.opaqueNetworkId)
        return Network(kind="opaque", name=next(found, ""))
    return Network(name=getattr(backing, "deviceName", None) or "")


def guest_family(guest_id: str) -> Guest:
    """Return the family of a ``guestId``."""
    if guest_id.lower().startswith(("win", "longhorn")):
        return Guest.WINDOWS
    return Guest.LINUX if _LINUX.match(guest_id) else Guest.UNKNOWN


def clock_of(guest: Guest) -> ClockOffset:
    """Return what the clock of a virtual machine shows: VMware decides it by the guest, and nobody can set it."""
    return ClockOffset.LOCALTIME if guest is Guest.WINDOWS else ClockOffset.UTC


def boot_disk(config: Config) -> Disk | None:
    """Return the disk that the machine starts from, as far as its configuration tells."""
    by_key = {f"disk:{disk.key}": disk for disk in config.disks}
    named = next((by_key[word] for word in config.boot.order if word in by_key), None)
    first = min(config.disks, key=lambda disk: (disk.controller, disk.unit), default=None)
    return named or first


def description(name: str, config: Config) -> MachineDescription:
    """Return our description of a machine of that configuration."""
    guest = guest_family(config.guest_id)
    return MachineDescription(
        name=name,
        id=config.instance_uuid or config.uuid,
        arch="aarch64" if config.guest_id.lower().startswith("arm") else "x86_64",
        cpus=config.cpus,
        cores=config.cores,
        memory=config.memory << 20,
        firmware=Firmware.UEFI if config.efi else Firmware.BIOS,
        secure_boot=config.secure_boot,
        tpm=config.tpm,
        clock=clock_of(guest),
        guest=guest,
        drivers=_drivers(config),
        disks=tuple(_describe_disk(config, disk) for disk in config.disks),
        nics=tuple(_describe_card(config, card) for card in config.cards),
        native=NativeDocument(kind=document.KIND, text=config.model_dump_json()),
    )


def _drivers(config: Config) -> tuple[str, ...]:
    known = set(settings.drivers(config.extra))
    disk = boot_disk(config)
    controller = config.controller(disk.controller) if disk else None
    if controller is not None and controller.model == "pvscsi":
        known.add("vmware")
    return tuple(sorted(known))


def _boot_order(config: Config, word: str) -> int | None:
    return config.boot.order.index(word) + 1 if word in config.boot.order else None


def _describe_disk(config: Config, disk: Disk) -> DiskDescription:
    controller = config.controller(disk.controller)
    return DiskDescription(
        key=str(disk.key),
        size=disk.size,
        format="vmdk",
        bus=devices.bus(controller) if controller else "",
        controller=controller.model if controller else "",
        boot_order=_boot_order(config, f"disk:{disk.key}"),
        source=disk.file,
    )


def _describe_card(config: Config, card: Card) -> Nic:
    return Nic(
        mac=card.mac,
        model=card.model,
        network=card.network.name,
        boot_order=_boot_order(config, f"nic:{card.key}"),
        connected=card.connected,
    )
