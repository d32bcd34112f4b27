"""What a running QEMU says of its machine: disks, and what else a description of it can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vbackup.api import DiskDescription, Firmware, Key, MachineDescription, NativeDocument, Unsupported
from vbackup_qmp.monitor import Monitor, Peer, Refused

ARGV = "qemu-argv"
"""The kind of native document: the machine's command line, as a list in JSON."""
OFF = "off"
OLDEST = (5, 2, 0)
"""The first QEMU that exports disks as we need it."""
SAFE_WITH_IOTHREADS = (9, 0, 0)
"""Before it QEMU dies of a failed assertion when an NBD client of a disk in an I/O thread leaves: seen with 7.2."""
_KEY: TypeAdapter[str] = TypeAdapter(Key)
_FORMATS = {"qcow", "qcow2", "qed", "luks", "parallels", "vdi", "vhdx", "vmdk", "vpc"}
"""What else QEMU calls a driver (``raw``, ``host_device``, ``throttle`` ...) has the disk's bytes as they are."""
_BUSES = {"virtio-blk": "virtio", "scsi-": "scsi", "ide-": "ide", "nvme": "nvme", "usb-": "usb"}


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A dirty bitmap as QEMU describes it."""

    name: str
    recording: bool
    busy: bool
    inconsistent: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a running machine: ``node`` is QEMU's name of what the guest writes to."""

    key: str
    node: str
    size: int
    format: str
    bus: str
    source: str
    keeps_bitmaps: bool
    """Whether a bitmap can be stored with the image, to be there after QEMU ends."""
    bitmaps: Mapping[str, Bitmap]


@dataclass(frozen=True, slots=True)
class Inventory:
    """A machine as its QEMU describes it."""

    description: MachineDescription
    disks: Sequence[Disk]
    notes: Sequence[str]
    state: str
    """QEMU's word for it: ``running``, ``paused`` ...; ``off`` without a QEMU of its own."""
    peer: Peer


async def look(monitor: Monitor, name: str) -> Inventory:
    """Ask QEMU about its machine. Raises: `Unsupported`, `Unavailable`."""
    if monitor.version < OLDEST:
        raise Unsupported(f"{name}: QEMU {_dotted(monitor.version)} is too old, {_dotted(OLDEST)} is needed")
    if monitor.version < SAFE_WITH_IOTHREADS and await monitor.ask("query-iothreads"):
        why = f"it has I/O threads, and QEMU before {_dotted(SAFE_WITH_IOTHREADS)} can die then when it is read"
        hint = "use a newer one, take the iothread from its disks, or back it up while it is off"
        raise Unsupported(f"{name}: {why}", hint=hint)
    disks: list[Disk] = []
    notes: list[str] = []
    firmware = Firmware.BIOS
    for block in await monitor.ask("query-block"):
        model = await _model(monitor, block)
        if model.startswith("cfi.pflash"):
            firmware = Firmware.UEFI
            if not block["inserted"]["ro"]:
                notes.append(f"{block['device'] or block['qdev']} (variables of the firmware) was left out")
        elif "inserted" in block and not block["removable"]:
            _sort(block, model, disks, notes)
    status = await monitor.ask("query-status")
    memory = await monitor.ask("query-memory-size-summary")
    description = MachineDescription(
        name=name,
        id=name,
        arch=(await monitor.ask("query-target"))["arch"],
        cpus=len(await monitor.ask("query-cpus-fast")) or 1,
        memory=memory["base-memory"] + memory.get("plugged-memory", 0),
        firmware=firmware,
        disks=tuple(_described(disk) for disk in disks),
        native=_native(monitor.peer),
    )
    return Inventory(description, disks, notes, status["status"], monitor.peer)


async def look_off(monitor: Monitor, name: str, keys: Mapping[str, str], last: MachineDescription | None) -> Inventory:
    """Ask a storage daemon about the disks of a machine that is off: ``keys`` by the names of its nodes.

    What else is known of it is what was so when it ran ``last``.
    """
    nodes = {node["node-name"]: node for node in await monitor.ask("query-named-block-nodes", flat=True)}
    disks = [_disk(key, "", nodes[node]) for node, key in keys.items()]
    described = tuple(_described(disk) for disk in disks)
    if last is not None:
        before = {disk.key: disk for disk in last.disks}
        described = tuple(d.model_copy(update={"bus": before[d.key].bus}) if d.key in before else d for d in described)
        return Inventory(last.model_copy(update={"disks": described}), disks, [], OFF, monitor.peer)
    notes = ["of its hardware nothing is known yet: it was never captured while it ran"]
    return Inventory(MachineDescription(name=name, id=name, disks=described), disks, notes, OFF, monitor.peer)


async def _model(monitor: Monitor, block: Mapping[str, Any]) -> str:
    if not block.get("qdev"):
        return ""
    try:
        return str(await monitor.ask("qom-get", path=block["qdev"], property="type"))
    except Refused:  # it is only for the description
        return ""


def _sort(block: Mapping[str, Any], model: str, disks: list[Disk], notes: list[str]) -> None:
    inserted = block["inserted"]
    node = inserted["node-name"]
    key = _key([node if not node.startswith("#") else "", block["device"]])
    if key is None:
        notes.append(f"the disk {inserted['file'][:200]} was left out: it has no node-name that can be a key")
    elif inserted["ro"]:
        notes.append(f"{key} was left out: the machine can only read it")
    else:
        disks.append(_disk(key, model, inserted))


def _disk(key: str, model: str, inserted: Mapping[str, Any]) -> Disk:
    image = inserted["image"]
    compat = image.get("format-specific", {}).get("data", {}).get("compat")
    return Disk(
        key=key,
        node=inserted["node-name"],
        size=image["virtual-size"],
        format=inserted["drv"] if inserted["drv"] in _FORMATS else "raw",
        bus=next((bus for prefix, bus in _BUSES.items() if model.startswith(prefix)), ""),
        source=image["filename"],
        keeps_bitmaps=inserted["drv"] == "qcow2" and compat != "0.10",
        bitmaps={
            each["name"]: Bitmap(each["name"], each["recording"], each["busy"], each.get("inconsistent", False))
            for each in inserted.get("dirty-bitmaps", [])
            if "name" in each
        },
    )


def _key(names: Sequence[str]) -> str | None:
    for name in names:
        try:
            return _KEY.validate_python(name)
        except ValidationError:
            continue
    return None


def _described(disk: Disk) -> DiskDescription:
    return DiskDescription(key=disk.key, size=disk.size, format=disk.format, bus=disk.bus, source=disk.source[:4096])


def _native(peer: Peer) -> NativeDocument | None:
    """Return the command line of whoever listens at the monitor, where it can be read and is QEMU's."""
    try:
        argv = Path(f"/proc/{peer.pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return None
    if not argv or not re.search(r"qemu|kvm", Path(argv[0]).name):
        return None
    return NativeDocument(kind=ARGV, text=json.dumps(argv))


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(part) for part in version)
