"""Deleting restore points by name, in all targets that have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vbackup.api import ConfigError, NotFound, Point, Target, Unavailable
from vbackup.jobs.everywhere import in_each
from vbackup.jobs.points import Reached, pick, reach
from vbackup.jobs.site import Site


@dataclass(frozen=True)
class Deleted:
    """A point that is gone from a target."""

    id: str
    target: str
    point: Point | None
    """None: it could not be read, or was gone already without a record."""


def delete_points(site: Site, texts: Sequence[str], only: str | None = None) -> list[Deleted]:
    """Delete points in all targets that have them, or in ``only`` one; all is looked up before the first is deleted.

    A point that cannot be read is meant only by exactly what it is shown as. Raises: `NotFound`; `ConfigError` for
    protected points; `Unavailable` when it is done but for targets that could not be reached.
    """
    reached = reach(site, only)
    damaged = {
        alias: {damage.point for damage in target.damaged_points() if damage.point}
        for alias, target in reached.targets.items()
    }
    lost = set[str]().union(*damaged.values())
    ids = list(dict.fromkeys(_identity(reached, text, lost) for text in texts))
    doomed: dict[str, list[Deleted]] = {}
    for alias, target in reached.targets.items():
        points = {each.point.id: each.point for each in reached.points if each.target == alias}
        mine = [Deleted(id_, alias, points[id_]) for id_ in ids if id_ in points]
        mine += [Deleted(id_, alias, None) for id_ in sorted(damaged[alias]) if id_ in ids]
        if mine:
            _need_unprotected(alias, target.protected(), mine)
            doomed[alias] = mine
    works = {alias: partial(_delete, reached.targets[alias], mine) for alias, mine in doomed.items()}
    in_each("deleted", reached.away, works)
    return [each for mine in doomed.values() for each in mine]


def _delete(target: Target, doomed: Sequence[Deleted]) -> None:
    if points := [each.point for each in doomed if each.point]:
        target.delete(points)
    if unread := [each.id for each in doomed if not each.point]:
        target.forget(unread)


def _identity(reached: Reached, text: str, lost: set[str]) -> str:
    if reached.away and text.endswith("@latest"):
        raise Unavailable(
            f"{text} may be another restore point than it seems: not to be read: {', '.join(reached.away)}",
            hint="nothing was deleted; name the point by its id, or one target with --target",
            transient=False,
        )
    try:
        return pick(reached.points, text).point.id
    except (NotFound, ConfigError):
        if text in lost:
            return text
        raise


def _need_unprotected(alias: str, protected: Mapping[str, str], doomed: Sequence[Deleted]) -> None:
    for each in doomed:
        if each.id in protected:
            name = f"{each.point.machine}@{each.id[:8]}" if each.point else each.id
            reason = f": {protected[each.id]}" if protected[each.id] else ""
            undo = f"`vbackup unprotect {each.id}` undoes the protection"
            raise ConfigError(
                f"restore point {name} is protected in {alias}{reason}",
                hint=f"nothing was deleted; {undo if each.point else 'it may be readable later, or after a repair'}",
            )
