"""The moments at which a group was captured, as far as restore points of them are left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from vbackup.config import GroupEntry
from vbackup.jobs.points import Found


@dataclass(frozen=True)
class Moment:
    """The points of one capture of a group, by ``hypervisor:machine``."""

    time: datetime
    """Of the last of them."""
    points: dict[str, Found]
    missing: tuple[str, ...]
    """Machines that were in the group then and have none; of points that do not say which were, those in it now."""


def moments(points: Iterable[Found], group: str, entry: GroupEntry) -> list[Moment]:
    """Return those of a group that any of ``points`` is of, newest first; of copies the first one counts."""
    sets: dict[str, dict[str, Found]] = defaultdict(dict)
    for found in points:
        point = found.point
        if point.group == group and point.together:
            sets[point.together].setdefault(f"{point.hypervisor}:{point.machine}", found)
    configured = [member.machine for member in entry.machines]
    made = [
        Moment(
            max(each.point.time for each in of_one.values()),
            of_one,
            tuple(machine for machine in _members(of_one.values()) or configured if machine not in of_one),
        )
        for of_one in sets.values()
    ]
    return sorted(made, key=lambda moment: moment.time, reverse=True)


def _members(of_one: Iterable[Found]) -> list[str]:
    return list(dict.fromkeys(member for each in of_one for member in each.point.members))
