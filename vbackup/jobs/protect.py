"""Protecting restore points from the rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from vbackup.api import Point, Target
from vbackup.jobs.everywhere import in_each
from vbackup.jobs.points import Found, pick, reach
from vbackup.jobs.site import Site


def protect_points(site: Site, texts: Sequence[str], reason: str) -> list[Found]:
    """Protect points wherever there is a copy of them; all names are looked up before the first is protected.

    ``reason`` is for people; white space in it becomes single spaces, so that it is one line. Raises: `NotFound`,
    `ConfigError`; `Unavailable` when it is done but for targets that could not be reached.
    """
    line = " ".join(reason.split())
    return _everywhere(site, texts, "protected", lambda target, point: target.protect(point, line))


def unprotect_points(site: Site, texts: Sequence[str]) -> list[Found]:
    """Undo `protect_points`, wherever there is a copy of the points. Raises: as that."""
    return _everywhere(site, texts, "unprotected", lambda target, point: target.unprotect(point))


def protections(site: Site, found: Iterable[Found]) -> Mapping[str, Mapping[str, str]]:
    """Return for each target of ``found`` what `Target.protected` has: reasons by the ids of points."""
    return {alias: site.target(alias).protected() for alias in dict.fromkeys(each.target for each in found)}


def _everywhere(site: Site, texts: Sequence[str], what: str, work: Callable[[Target, Point], None]) -> list[Found]:
    reached = reach(site)
    wanted = dict.fromkeys(pick(reached.points, text).point.id for text in texts)
    copies: dict[str, list[Found]] = defaultdict(list)
    for each in reached.points:
        copies[each.point.id].append(each)
    found = [each for identity in wanted for each in copies[identity]]

    def in_target(alias: str) -> None:
        for each in found:
            if each.target == alias:
                work(reached.targets[alias], each.point)

    aliases = dict.fromkeys(each.target for each in found)
    in_each(what, reached.away, {alias: partial(in_target, alias) for alias in aliases})
    return found
