"""How restore points are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vbackup.api import Damage, MachineDescription
from vbackup.cli import output
from vbackup.jobs.points import Found

_NUMBERS = frozenset({"DISKS", "READ", "CHANGED", "STORED"})


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
        "disks": [{"key": disk.key, "size": disk.size} for disk in point.disks],
        "read": point.read,
        "changed": point.changed,
        "stored": point.stored,
        "warnings": list(point.warnings),
    }


def details(found: Found, machine: MachineDescription | None, protected: str | None) -> dict[str, Any]:
    """Return what ``show --json`` has: `as_json`, and how the point and the machine were made.

    ``machine`` is None where the key does not open it. ``protected`` is why the point is; None: it is not.
    """
    point = found.point
    return {
        **as_json(found, protected=protected is not None),
        "protected_reason": protected,
        "hypervisor_type": point.hypervisor_type,
        "seconds": point.seconds,
        "files": sorted(point.files),
        "disks": [
            {
                "key": disk.key,
                "size": disk.size,
                "format": disk.format,
                "full_reason": disk.full_reason,
                "read": disk.read,
                "changed": disk.changed,
                "stored": disk.stored,
            }
            for disk in point.disks
        ],
        "description": machine.model_dump(mode="json", exclude={"native"}) if machine else None,
    }


def damage_as_json(damage: Damage) -> dict[str, Any]:
    """Return damage as ``verify --json`` has it: offset and length in bytes of the disk."""
    return {name: getattr(damage, name) for name in ("point", "machine", "disk", "offset", "length", "reason")}


def print_table(found: Sequence[Found], protected: Mapping[str, Mapping[str, str]]) -> None:
    """Print restore points, one a line; ``protected`` has, by target, the ids of those that are."""
    columns = ("ID", "MACHINE", "TIME", "TARGET", "DISKS", "READ", "CHANGED", "STORED", "PROTECTED", "WARNINGS")
    rows = [_row(each, protected=each.point.id in protected[each.target]) for each in found]
    output.table(columns, rows, numbers=_NUMBERS)


def _row(found: Found, *, protected: bool) -> tuple[str, ...]:
    point = found.point
    total = sum(disk.size for disk in point.disks)
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
