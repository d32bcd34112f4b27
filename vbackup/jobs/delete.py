"""Deleting restore points by name, in all targets that have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vbackup.api import ConfigError, NotFound, Point, Target
from vbackup.jobs.points import find_point, readable
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

    A point that cannot be read is named as it is shown. Raises: `NotFound`; `ConfigError` for protected points.
    """
    targets = dict(readable(site, only))
    damaged = {
        alias: {damage.point for damage in target.damaged_points() if damage.point} for alias, target in targets.items()
    }
    lost = set[str]().union(*damaged.values())
    ids = list(dict.fromkeys(_identity(site, text, only, lost) for text in texts))
    doomed: list[Deleted] = []
    for alias, target in targets.items():
        points = {point.id: point for point in target.points()}
        there = [id_ for id_ in ids if id_ in points]
        _need_unprotected(alias, target, (points[id_] for id_ in there))
        doomed += [Deleted(id_, alias, points[id_]) for id_ in there]
        doomed += [
            Deleted(id_, alias, None) for id_ in sorted(damaged[alias]) if any(each.startswith(id_) for each in ids)
        ]
    for alias, target in targets.items():
        mine = [each for each in doomed if each.target == alias]
        if points_of := [each.point for each in mine if each.point]:
            target.delete(points_of)
        if unread := [each.id for each in mine if not each.point]:
            target.forget(unread)
    return doomed


def _identity(site: Site, text: str, only: str | None, lost: set[str]) -> str:
    try:
        return find_point(site, text, only).point.id
    except NotFound:
        if text in lost:
            return text
        raise


def _need_unprotected(alias: str, target: Target, points: Iterable[Point]) -> None:
    protected = target.protected()
    for point in points:
        if point.id in protected:
            reason = f": {protected[point.id]}" if protected[point.id] else ""
            raise ConfigError(
                f"restore point {point.machine}@{point.id[:8]} is protected in {alias}{reason}",
                hint=f"nothing was deleted; `vbackup unprotect {point.id}` undoes the protection",
            )
