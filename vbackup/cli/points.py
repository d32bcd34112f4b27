"""How restore points are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vbackup.api import Damage, MachineDescription, Point, PointDisk
from vbackup.cli import output
from vbackup.jobs.points import Found

_NUMBERS = frozenset({"DISKS", "READ", "CHANGED", "STORED", "MEMORY"})


def as_json(found: Found, *, protected: bool = False) -> dict[str, Any]:
    """Return what ``list --json`` has for a restore point: sizes in bytes, time as RFC 3339 in UTC."""
    point = found.point
    return {
        "id": point.id,
        "machine": point.machine,
        "hypervisor": point.hypervisor,
        "target": found.target,
        "time": output.moment(point.time),
        "protected": protected,
        "quiesced": point.quiesced,
        "group": point.group or None,
        "together": point.together or None,
        "disks": [{"key": disk.key, "size": disk.size} for disk in point.disks if not disk.is_memory],
        "memory": next(({"size": disk.size} for disk in point.disks if disk.is_memory), None),
        "read": point.read,
        "changed": point.changed,
        "stored": point.stored,
        "warnings": list(point.warnings),
    }


def details(
    found: Found, machine: MachineDescription | None, protected: str | None, together: Sequence[Point] = ()
) -> dict[str, Any]:
    """Return what ``show --json`` has: `as_json`, and how the point and the machine were made.

    ``machine`` is None where the key does not open it. ``protected`` is why the point is; None: it is not. ``together``
    are the points of the other machines of the group that are of the same capture.
    """
    point = found.point
    return {
        **as_json(found, protected=protected is not None),
        "protected_reason": protected,
        "hypervisor_type": point.hypervisor_type,
        "seconds": point.seconds,
        "captured_with": [
            {"machine": f"{each.hypervisor}:{each.machine}", "id": each.id, "time": output.moment(each.time)}
            for each in together
        ],
        "files": sorted(point.files),
        "disks": [_disk(disk) for disk in point.disks if not disk.is_memory],
        "memory": next((_disk(disk) for disk in point.disks if disk.is_memory), None),
        "description": machine.model_dump(mode="json", exclude={"native"}) if machine else None,
    }


def _disk(disk: PointDisk) -> dict[str, Any]:
    return {
        "key": disk.key,
        "size": disk.size,
        "format": disk.format,
        "full_reason": disk.full_reason,
        "read": disk.read,
        "changed": disk.changed,
        "stored": disk.stored,
    }


def damage_as_json(damage: Damage) -> dict[str, Any]:
    """Return damage as ``verify --json`` has it: offset and length in bytes of the disk."""
    return {name: getattr(damage, name) for name in ("point", "machine", "disk", "offset", "length", "reason")}


def print_table(found: Sequence[Found], protected: Mapping[str, Mapping[str, str]]) -> None:
    """Print restore points, one a line; ``protected`` has, by target, the ids of those that are."""
    columns = ["ID", "MACHINE", "TIME", "TARGET", "DISKS", "READ", "CHANGED", "STORED", "PROTECTED", "WARNINGS"]
    rows = [_row(each, protected=each.point.id in protected[each.target]) for each in found]
    for column, values in _sometimes(found).items():
        if any(values):
            columns.append(column)
            rows = [(*row, value) for row, value in zip(rows, values, strict=True)]
    output.table(columns, rows, numbers=_NUMBERS)


def _sometimes(found: Sequence[Found]) -> dict[str, list[str]]:
    """Return columns that are only there when any point has something to say in them."""
    points = [each.point for each in found]
    memories = [next((output.size(disk.size) for disk in point.disks if disk.is_memory), "") for point in points]
    groups = [f"{point.group}{'' if point.together else ' (apart)'}" if point.group else "" for point in points]
    return {"MEMORY": memories, "GROUP": groups}


def _row(found: Found, *, protected: bool) -> tuple[str, ...]:
    point = found.point
    total = sum(disk.size for disk in point.disks if not disk.is_memory)
    amounts = (total, point.read, point.changed, point.stored)
    return (
        point.id[:8],
        f"{point.hypervisor}:{point.machine}",
        output.moment(point.time.replace(microsecond=0)),
        found.target,
        *map(output.size, amounts),
        "yes" if protected else "",
        str(len(point.warnings) or ""),
    )
