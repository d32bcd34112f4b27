"""What the restore of a machine of another hypervisor is going to come to. Nothing is made here yet."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from xml.etree.ElementTree import Element

from vbackup.api import Firmware, Guest, MachineDescription, RestoreDisk, RestoreRequest, Unsupported
from vbackup_libvirt import convert, document, hardware, identity, state
from vbackup_libvirt.capabilities import ARCH, capabilities
from vbackup_libvirt.connection import library, translated
from vbackup_libvirt.goal import Goal, find_existing, require_free_name
from vbackup_libvirt.hardware import VIRTIO, Surroundings
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.placement import Place, Placer, safe_name


def is_foreign(machine: MachineDescription) -> bool:
    """Whether it was captured from something else than libvirt."""
    return machine.native is None or machine.native.kind != document.KIND


def decide(
    node: Node,
    machine: MachineDescription,
    disks: Sequence[RestoreDisk],
    files: Mapping[str, bytes],
    request: RestoreRequest,
    token: str,
) -> Goal:
    """Decide, and refuse what can be refused, as `goal.decide` does.

    Raises: `AlreadyExists`, `NotFound`, `NoSpace`, `Busy`, `Unsupported`, `AccessDenied`, `ConfigError`.
    """
    around = _surroundings(node, machine)
    uuid, existing, notes = _identity(node, machine, request)
    name = request.name or (machine.name if existing is None else existing.name)
    placer = Placer(node, uuid, request, token)
    wanted = _in_order(machine, [replace(disk, format="qcow2") for disk in disks if not disk.is_memory])
    places = placer.as_arrived(name, wanted) if request.name is None else placer.as_new(name, wanted)
    keep_macs = request.name is None
    has_virtio = VIRTIO in machine.drivers
    converts = machine.guest is Guest.WINDOWS and not has_virtio and convert.is_there(node.host)
    nvram = node.config_dir / f"nvram/{safe_name(name)}-{uuid[:8]}_VARS.fd"
    built = partial(hardware.build, machine, name, uuid, places, around, nvram=nvram, keep_macs=keep_macs)
    notes += hardware.limits(machine, around, has_nvram=state.NVRAM in files, keep_macs=keep_macs)
    notes += _left_out(machine, disks)
    notes += _devices(node, machine, has_virtio=has_virtio, converts=converts)
    if existing is not None:
        notes += _left_behind(existing, places)
        if name != machine.name:
            notes.append(
                f"it replaces the machine {name}, which has its UUID, and keeps that name; it was {machine.name}"
            )
    domain = built(virtio=has_virtio)
    _require_possible(node, name, domain)
    return Goal(
        name,
        uuid,
        places,
        notes,
        domain,
        existing,
        # Variables of a machine that was here before would name its boot entries and keys.
        obsolete=(nvram,) if node.host.exists(str(nvram)) else (),
        converted=(lambda virtio: built(virtio=virtio)) if converts else None,
    )


def _require_possible(node: Node, name: str, domain: Element) -> None:
    """Have libvirt read the document, and make nothing of it. Raises: `Unsupported` for what it could not define.

    Whether the command line of QEMU that it asks for could be made is no matter: the disks are not there yet.
    """
    libvirt, connection = library(), node.connection.get()
    try:
        connection.domainXMLToNative("qemu-argv", identity.text(domain))
    except libvirt.libvirtError as error:
        if error.get_error_code() in {libvirt.VIR_ERR_XML_ERROR, libvirt.VIR_ERR_CONFIG_UNSUPPORTED}:
            hint = "restore its disks with --disk KEY=PATH and make a machine around them"
            raise Unsupported(f"{name}: libvirt refuses its hardware: {error}", hint=hint) from error


def _surroundings(node: Node, machine: MachineDescription) -> Surroundings:
    hint = "restore its disks with --disk KEY=PATH and make a machine around them"
    if machine.arch not in {ARCH, "i686"}:
        raise Unsupported(f"{machine.name} is a machine for {machine.arch}, which is not built here", hint=hint)
    offered = capabilities(node)
    if machine.firmware is Firmware.UEFI and not offered.uefi:
        raise Unsupported(
            f"{machine.name} boots by UEFI, for which {node.host.name} has no firmware",
            hint="install it there (on Debian: the package ovmf)",
        )
    connection = node.connection.get()
    with translated(f"{node.alias}: listing the networks"):
        networks = {network.name() for network in connection.listAllNetworks()}
    return Surroundings(offered, networks, node.options.networks)


def _identity(
    node: Node, machine: MachineDescription, request: RestoreRequest
) -> tuple[str, Machine | None, list[str]]:
    """Return the UUID, the machine that is overwritten if there is one, and notes."""
    if request.name is not None:
        require_free_name(node, request.name)
        return str(uuids.uuid4()), None, []
    try:
        uuid = str(uuids.UUID(machine.id))
    except ValueError:
        require_free_name(node, machine.name)
        uuid = str(uuids.uuid4())
        return uuid, None, [f"its UUID is {uuid}: {machine.id[:80]!r}, as which it was known, is none"]
    return uuid, find_existing(node, machine.model_copy(update={"id": uuid}), request), []


def _in_order(machine: MachineDescription, disks: Sequence[RestoreDisk]) -> list[RestoreDisk]:
    """Return the disks with the one that it boots from first: some firmware looks no further."""
    known = {disk.key: (disk.boot_order is None, disk.boot_order or 0, n) for n, disk in enumerate(machine.disks)}
    return sorted(disks, key=lambda disk: known.get(disk.key, (True, 0, len(known))))


def _left_out(machine: MachineDescription, disks: Sequence[RestoreDisk]) -> Iterator[str]:
    restored = {disk.key for disk in disks}
    for disk in machine.disks:
        if disk.key not in restored:
            yield f"disk {disk.key} ({disk.source}) is not in the restore point; the machine is without it"
    if any(disk.is_memory for disk in disks):
        yield "its memory is not restored: only the hypervisor that it was captured from can go on from it"


def _devices(node: Node, machine: MachineDescription, *, has_virtio: bool, converts: bool) -> Iterator[str]:
    if has_virtio:
        yield "its disks and network cards are virtio devices, with which its system is known to boot"
        return
    yield "its disks are on SATA and its network cards are e1000e, for which systems bring drivers along"
    if converts:
        yield f"{convert.PROGRAM} is run on its disks, to give its system drivers for KVM"
    elif machine.guest is Guest.WINDOWS:
        yield (
            f"{convert.PROGRAM} is not installed on {node.host.name}: if its Windows does not start from SATA, "
            "install that (package virt-v2v) and restore it once more"
        )


def _left_behind(existing: Machine, places: Sequence[Place]) -> Iterator[str]:
    taken = {str(path) for place in places for path in (place.path, place.named)}
    for disk in document.disks(existing.xml(inactive=True)):
        if disk.source and disk.source not in taken:
            yield f"{disk.source}, a disk of the machine that is replaced, is left"
