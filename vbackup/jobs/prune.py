"""Deleting the restore points that no rule keeps, and giving back the space of what no point needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from vbackup.api import (
    ConfigError,
    Damage,
    Interrupted,
    Locked,
    Point,
    PruneOrder,
    PruneReport,
    Target,
    VBackupError,
    clock,
)
from vbackup.config import Config, zone
from vbackup.jobs.moments import moments
from vbackup.jobs.points import Found
from vbackup.jobs.retention import Decision, decide, keep_all
from vbackup.jobs.site import Site

_LOCKED = ("locked by the store",)


@dataclass(frozen=True)
class TargetResult:
    """What came of one target."""

    target: str
    decisions: tuple[Decision, ...] = ()
    """By machine, oldest first; of those not kept the points are deleted (with a dry run: would be)."""
    damaged: tuple[Damage, ...] = ()
    """Points that cannot be read: no rule counts them, and they stay."""
    space: PruneReport | None = None
    error: VBackupError | None = None
    """What ended the work on this target; ``decisions`` are empty if nothing was decided and carried out before."""

    @property
    def gone(self) -> list[Point]:
        """The points that are not kept."""
        return [decision.point for decision in self.decisions if not decision.kept]


@dataclass(frozen=True)
class PruneOutcome:
    """What came of it all."""

    dry_run: bool
    results: tuple[TargetResult, ...]

    @property
    def failed(self) -> bool:
        """Whether any target could not be pruned."""
        return any(result.error is not None for result in self.results)

    @property
    def warnings(self) -> bool:
        """Whether there is anything that the user must know all the same."""
        return any(result.damaged or (result.space and result.space.notes) for result in self.results)


def prune(site: Site, names: Sequence[str], order: PruneOrder) -> PruneOutcome:
    """Apply the rules of the jobs in ``names`` where their points are; then free space in these targets.

    Without names: all jobs and all targets, also those that no job uses. One target's failure is in its result and
    stops no other. Raises: `ConfigError` for an unknown name; `Interrupted`.
    """
    config = site.config
    for name in names:
        if name not in config.jobs:
            known = ", ".join(sorted(config.jobs)) or "none"
            raise ConfigError(f"there is no job named {name!r}", hint=f"configured: {known}")
    if not config.targets:
        raise ConfigError("the configuration has no targets", hint="add one under `targets:`")
    used = [alias for name in names for alias in (config.jobs[name].target, *config.jobs[name].copies)]
    aliases = dict.fromkeys(used) if names else config.targets
    now = clock.now()
    with site.past_caches():
        return PruneOutcome(order.dry_run, tuple(_target(site, alias, names, order, now) for alias in aliases))


def _target(site: Site, alias: str, names: Sequence[str], order: PruneOrder, now: datetime) -> TargetResult:
    result = TargetResult(alias)
    try:
        target = site.target(alias)
        points = target.points()
        result = replace(result, damaged=tuple(target.damaged_points()))
        # Asked for after the points, as late as can be: somebody may be protecting one right now.
        decided = replace(result, decisions=tuple(_decide(site.config, alias, names, points, target.protected(), now)))
        notes: tuple[str, ...] = ()
        if decided.gone and not order.dry_run:
            decided, notes = _delete(target, decided)
        result = decided
        without = frozenset(point.id for point in decided.gone) if order.dry_run else frozenset[str]()
        space = target.prune(replace(order, without=without))
        return replace(result, space=replace(space, notes=(*notes, *space.notes)))
    except Interrupted:
        raise
    except VBackupError as error:  # a store that is away must not let the others fill up
        return replace(result, error=error)


def _delete(target: Target, decided: TargetResult) -> tuple[TargetResult, tuple[str, ...]]:
    """Delete what is not kept. Return what is gone then, and notes of what the store has locked on its own."""
    try:
        target.delete(decided.gone)
    except Locked as error:
        left = {point.id for point in target.points()}
        decisions = tuple(
            each if each.kept or each.point.id not in left else replace(each, kept=True, reasons=_LOCKED)
            for each in decided.decisions
        )
        return replace(decided, decisions=decisions), (f"restore points stay that are locked: {error.message}",)
    return decided, ()


def _decide(
    config: Config,
    alias: str,
    names: Sequence[str],
    points: Sequence[Point],
    protected: Mapping[str, str],
    now: datetime,
) -> list[Decision]:
    """Decide on the points of the jobs in ``names`` (all without any), machine by machine.

    Machines of two hypervisors are two, even if they are called the same there: it may be another one.
    """
    machines: dict[tuple[str, ...], list[Point]] = defaultdict(list)
    for point in points:
        if not names or point.job in names:
            machines[point.hypervisor, point.machine_id, point.hypervisor_type, point.job].append(point)
    decisions: list[Decision] = []
    for (*_, name), group in sorted(machines.items()):
        job = config.jobs.get(name)
        if job is None:
            decisions += keep_all(group, f"its job {name!r} is not configured", protected)
        elif alias not in (job.target, *job.copies):
            decisions += keep_all(group, f"its job {name!r} does not use this target", protected)
        else:
            decisions += decide(group, job.keep, zone(job.timezone), protected, now)
    whole = _whole(config, alias, points, now)
    return [_kept_for(each, whole[each.point.id]) if each.point.id in whole else each for each in decisions]


def _whole(config: Config, alias: str, points: Sequence[Point], now: datetime) -> dict[str, str]:
    """Return the points of each group's newest complete moment, by id, and why they stay.

    When a machine of a group has failed for some time, each machine's newest points may be of no moment in common.
    Where no moment is complete it is that of the most machines. Those from the future do not count, as in `decide`.
    """
    found = [Found(alias, point) for point in points]
    stay: dict[str, str] = {}
    for group, entry in config.groups.items():
        past = [moment for moment in moments(found, group, entry) if moment.time <= now]
        newest = next((moment for moment in past if not moment.missing), None)
        most = newest or max(past, key=lambda moment: len(moment.points), default=None)
        which = "newest complete moment" if newest else "moment of the most machines"
        for each in most.points.values() if most else ():
            stay[each.point.id] = f"the {which} of group {group}"
    return stay


def _kept_for(decision: Decision, reason: str) -> Decision:
    return replace(decision, kept=True, reasons=(*(decision.reasons if decision.kept else ()), reason))
