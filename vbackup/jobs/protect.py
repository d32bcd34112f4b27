"""Protecting restore points from the rules."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vbackup.jobs.points import Found, find_point, list_points
from vbackup.jobs.site import Site


def protect_points(site: Site, texts: Sequence[str], reason: str) -> list[Found]:
    """Protect points wherever there is a copy of them; all names are looked up before the first is protected.

    ``reason`` is for people; white space in it becomes single spaces, so that it is one line.
    """
    found = _everywhere(site, texts)
    for each in found:
        site.target(each.target).protect(each.point, " ".join(reason.split()))
    return found


def unprotect_points(site: Site, texts: Sequence[str]) -> list[Found]:
    """Undo `protect_points`, wherever there is a copy of the points."""
    found = _everywhere(site, texts)
    for each in found:
        site.target(each.target).unprotect(each.point)
    return found


def protections(site: Site, found: Iterable[Found]) -> Mapping[str, Mapping[str, str]]:
    """Return for each target of ``found`` what `Target.protected` has: reasons by the ids of points."""
    return {alias: site.target(alias).protected() for alias in dict.fromkeys(each.target for each in found)}


def _everywhere(site: Site, texts: Sequence[str]) -> list[Found]:
    wanted = dict.fromkeys(find_point(site, text).point.id for text in texts)
    copies: dict[str, list[Found]] = defaultdict(list)
    for found in list_points(site):
        copies[found.point.id].append(found)
    return [found for identity in wanted for found in copies[identity]]
