"""The description that a new machine gets beside its disks: ``machine.json``, with a command that would start it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vbackup.api import Firmware, MachineDescription
from vbackup_qmp.inventory import ARGV
from vbackup_qmp.places import Plan

_WORDS: TypeAdapter[list[str]] = TypeAdapter(list[str])
_DEVICES = {"scsi": "scsi-hd", "ide": "ide-hd", "sata": "ide-hd", "nvme": "nvme"}


def machine_json(machine: MachineDescription, plan: Plan) -> str:
    """Return the document."""
    argv = _argv(machine)
    document: dict[str, Any] = {
        "name": plan.name,
        "disks": {place.disk.key: {"path": str(place.path), "format": place.format} for place in plan.places},
        "command": _made(machine, plan) if argv is None else _moved(argv, machine, plan),
        "was": machine.model_dump(mode="json", exclude={"native"}),
    }
    return json.dumps(document, indent=2) + "\n"


def remarks(machine: MachineDescription, plan: Plan) -> list[str]:
    """Return what there is to know before that command is used."""
    said = ["the command in machine.json names the sockets, addresses and UUID of the machine that was backed up"]
    if _argv(machine) is None:
        said = ["the command in machine.json is made up of the machine's description: look at it before it is used"]
    formats = {disk.key: disk.format for disk in machine.disks}
    changed = [place.disk.key for place in plan.places if formats.get(place.disk.key, place.format) != place.format]
    if changed:
        said.append(f"its disk {', '.join(changed)} has another format now: change that in the command, too")
    if machine.firmware is Firmware.UEFI:
        said.append("the variables of its UEFI firmware are not there: it boots with new ones")
    return said


def _argv(machine: MachineDescription) -> list[str] | None:
    """Return the command line that the machine had, if it was one of ours."""
    if machine.native is None or machine.native.kind != ARGV:
        return None
    try:
        return _WORDS.validate_json(machine.native.text)
    except ValidationError:
        return None


def _moved(argv: list[str], machine: MachineDescription, plan: Plan) -> list[str]:
    """Return a command line with the new images in it."""
    places = {place.disk.key: place.path for place in plan.places}
    moves = {disk.source: places[disk.key] for disk in machine.disks if disk.source and disk.key in places}
    return [_replaced(argument, moves) for argument in argv]


def _replaced(argument: str, moves: Mapping[str, Path]) -> str:
    if not moves:
        return argument
    longest = sorted(map(re.escape, moves), key=len, reverse=True)
    return re.sub(rf"(?<![\w./-])({'|'.join(longest)})(?![\w./-])", lambda found: str(moves[found[0]]), argument)


def _made(machine: MachineDescription, plan: Plan) -> list[str]:
    argv = [f"qemu-system-{machine.arch}", "-name", plan.name, "-smp", str(machine.cpus)]
    if machine.memory:
        argv += ["-m", f"{machine.memory >> 20}M"]
    buses = {disk.key: disk.bus for disk in machine.disks}
    if "scsi" in buses.values():
        argv += ["-device", "virtio-scsi-pci"]
    for place in plan.places:
        key = place.disk.key
        file = {"driver": "file", "filename": str(place.path)}
        argv += ["-blockdev", json.dumps({"driver": place.format, "node-name": key, "file": file})]
        argv += ["-device", f"{_DEVICES.get(buses.get(key, ''), 'virtio-blk-pci')},drive={key}"]
    return argv
