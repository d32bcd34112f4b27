"""Restore points as the user names them, over all targets."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from vbackup.api import ConfigError, Damage, Interrupted, MachineDescription, NotFound, Point, Target, VBackupError
from vbackup.jobs.site import Site

log = logging.getLogger(__name__)

_ID_PREFIX = re.compile(r"[0-9a-f]{4,32}")
_HOW = "use MACHINE@latest, MACHINE@TIME or 4 or more digits of an id"


@dataclass(frozen=True)
class Found:
    """A point and the target that has it."""

    target: str
    point: Point


@dataclass(frozen=True)
class Reached:
    """The targets whose points can be listed, and what those raised that are left out; by alias."""

    targets: Mapping[str, Target]
    away: Mapping[str, VBackupError]
    points: Sequence[Found]
    """Oldest first."""


@dataclass(frozen=True)
class VerifyReport:
    """What was checked, and what of it is damaged."""

    points: tuple[Found, ...]
    damage: tuple[Damage, ...]
    bytes_checked: int


def list_points(site: Site, machine: str | None = None, target: str | None = None) -> list[Found]:
    """Return all points, of one machine (or ``@group``) or in one target if it is named, oldest first.

    A target that cannot be read is logged and left out, as long as another one can: at three in the morning the
    copy that is there counts. Raises: what the first target raised when none can be read.
    """
    found = reach(site, target).points
    return list(found) if machine is None else _of_machine(found, machine)


def _of_machine(found: Sequence[Found], machine: str) -> list[Found]:
    if machine.startswith("@"):
        return [f for f in found if f.point.group == machine[1:]]
    return [f for f in found if machine in (f.point.machine, f"{f.point.hypervisor}:{f.point.machine}")]


def survey(site: Site, machine: str | None = None) -> tuple[list[Found], list[Damage]]:
    """Return what `list_points` and `list_damaged` do, asking each target only once."""
    reached = reach(site)
    found = list(reached.points) if machine is None else _of_machine(reached.points, machine)
    return found, [damage for target in reached.targets.values() for damage in target.damaged_points()]


def list_damaged(site: Site) -> list[Damage]:
    """Return points that are there but cannot be read."""
    return [damage for _, target in readable(site) for damage in target.damaged_points()]


def readable(site: Site, only: str | None = None) -> Iterator[tuple[str, Target]]:
    """Yield the targets whose points can be listed, by alias; see `reach`."""
    yield from reach(site, only).targets.items()


def reach(site: Site, only: str | None = None) -> Reached:
    """Ask all targets for their points, or ``only`` one if it is named; see `list_points`.

    Raises: `ConfigError` for an unknown name; what the first target raised when none can be read.
    """
    targets: dict[str, Target] = {}
    away: dict[str, VBackupError] = {}
    found: list[Found] = []
    for alias in site.config.targets if only is None else [only]:
        target = site.target(alias)
        try:
            found += [Found(alias, point) for point in target.points()]
            targets[alias] = target
        except VBackupError as error:
            if isinstance(error, Interrupted) and site.stop.is_set():
                raise
            away[alias] = error
    if not targets:
        raise next(iter(away.values()), ConfigError("the configuration has no targets"))
    for alias, failure in away.items():
        log.warning("target %s was left out: %s", alias, failure)
    return Reached(targets, away, sorted(found, key=lambda f: (f.point.time, f.point.id)))


def find_point(site: Site, text: str, target: str | None = None) -> Found:
    """Return the point that ``text`` names: ``machine@latest``, ``machine@TIME`` or a unique prefix of an id.

    TIME is a time as `list` shows it, or the beginning of one (``2026-11-22T14:05``). Of copies in several targets it
    is that in the first one of the configuration that can be read, or in ``target``. Raises: `NotFound`; `ConfigError`
    when it is ambiguous.
    """
    return pick(list_points(site, target=target), text)


def pick(found: Sequence[Found], text: str) -> Found:
    """Return that of ``found``, oldest first, which ``text`` names; see `find_point`."""
    name, at, when = text.rpartition("@")
    if not at:
        return _by_id(found, text)
    if not when.strip():
        raise ConfigError(f"{text} has no time", hint=_HOW)
    if name.startswith("@") or not name:
        raise ConfigError(f"{text} stands for the points of a group, which only `restore` takes", hint=_HOW)
    points = _of_machine(found, name)
    if not points:
        raise NotFound(f"there is no restore point of {name}", hint="`vbackup list` shows all")
    if when == "latest":
        return _latest(points, text)
    return _only(at_time(points, when), text, f"there is no restore point of {name} at {when}")


def at_time(points: Sequence[Found], when: str) -> list[Found]:
    """Return the points of a time as `list` shows it, or the beginning of one; see `find_point`."""
    wanted = when.strip().replace(" ", "T").upper().removesuffix("Z")
    return [f for f in points if time_text(f.point.time).startswith(wanted)] or _same_moment(points, when)


def captured_with(site: Site, point: Point) -> list[Point]:
    """Return the points of the other machines of a group that are of the same capture, oldest first."""
    if not point.together:
        return []
    found = {each.point.id: each.point for each in list_points(site) if each.point.together == point.together}
    return [each for each in found.values() if each.id != point.id]


def time_text(moment: datetime) -> str:
    """Return a time as it is shown: RFC 3339 in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _same_moment(points: Sequence[Found], when: str) -> list[Found]:
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        return []
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return [found for found in points if abs((found.point.time - moment).total_seconds()) < 1]


def _latest(points: Sequence[Found], text: str) -> Found:
    """Return the newest point of a machine. Two may be called the same: which is meant must not depend on their age."""
    newest = {(each.point.hypervisor, each.point.machine_id): each for each in points}
    if len(newest) > 1:
        some = ", ".join(f"{f.point.hypervisor}:{f.point.machine} ({f.point.id[:8]})" for f in newest.values())
        raise ConfigError(
            f"{text} could be the restore point of several machines: {some}",
            hint="name the machine as HYPERVISOR:MACHINE, or the point by its id",
        )
    return next(each for each in points if each.point.id == points[-1].point.id)


def _by_id(found: Sequence[Found], text: str) -> Found:
    if not _ID_PREFIX.fullmatch(text):
        raise ConfigError(f"{text!r} names no restore point", hint=_HOW)
    hits = [each for each in found if each.point.id.startswith(text)]
    return _only(hits, text, f"there is no restore point whose id begins with {text}")


def _only(hits: Sequence[Found], text: str, missing: str) -> Found:
    if not hits:
        raise NotFound(missing, hint="`vbackup list` shows all")
    if len({found.point.id for found in hits}) > 1:
        some = ", ".join(f"{f.point.machine}@{time_text(f.point.time)} ({f.point.id[:8]})" for f in hits[:4])
        raise ConfigError(f"{text} could be several restore points: {some}", hint="name one of them by its id")
    return hits[0]


def describe(site: Site, found: Found) -> MachineDescription:
    """Return the machine of a point as it was. Raises: what `Target.description` raises."""
    return site.target(found.target).description(found.point)


def verify_points(site: Site, texts: Sequence[str], progress: Callable[[int], None]) -> VerifyReport:
    """Read and check points, all of them when none is named; points that cannot be read count as damage.

    Raises: what reading the store raises: an unreachable store is no damage.
    """
    found = [find_point(site, text) for text in texts] if texts else list_points(site)
    damage: list[Damage] = [] if texts else list_damaged(site)
    checked = 0

    def count(size: int) -> None:
        nonlocal checked
        checked += size
        progress(size)

    for alias in dict.fromkeys(item.target for item in found):
        points = [item.point for item in found if item.target == alias]
        with site.past_caches():
            damage += site.target(alias).verify(points, count)
    return VerifyReport(tuple(found), tuple(damage), checked)
