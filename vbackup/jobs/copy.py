"""Copying restore points into other targets: which ones, in which order, and what trouble does to the rest.

Of a job those are copied that its `keep` rules would keep, were all points of both targets in one: what the next prune
of the copies would delete does not travel. It is the oldest first, so that each one after costs what has changed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from vbackup.api import (
    Busy,
    ConfigError,
    Interrupted,
    JobFinished,
    JobProgress,
    Point,
    VBackupError,
    clock,
)
from vbackup.config import zone
from vbackup.jobs.copying import Copying, PointCopy, Watch
from vbackup.jobs.locks import locked
from vbackup.jobs.points import Found, find_point, list_points
from vbackup.jobs.retention import decide
from vbackup.jobs.site import Site

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CopyReport:
    """What came of copying into one target."""

    target: str
    results: tuple[PointCopy, ...] = ()
    skipped: int = 0
    """Points that were there already."""
    notes: tuple[str, ...] = ()
    error: VBackupError | None = None
    """What ended the work; with ``results`` as far as it came."""

    @property
    def copied(self) -> list[PointCopy]:
        """Those that are there now."""
        return [result for result in self.results if result.error is None]

    @property
    def errors(self) -> list[tuple[PointCopy | None, VBackupError]]:
        """All that went wrong, with the point that it is about, if any."""
        found: list[tuple[PointCopy | None, VBackupError]] = [(each, each.error) for each in self.results if each.error]
        return [*found, (None, self.error)] if self.error else found

    @property
    def failed(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.errors)

    @property
    def read(self) -> int:
        """Bytes that were read."""
        return sum(result.read for result in self.results)

    @property
    def stored(self) -> int:
        """Bytes that were stored."""
        return sum(result.stored for result in self.results)


def copy(site: Site, names: Sequence[str], to: str, watch: Watch) -> CopyReport:
    """Copy what ``names`` stand for, points or jobs, into the target ``to``. A point's failure is in its result.

    Raises: `NotFound`, `ConfigError` for what names nothing; what listing the targets raises; `Busy`; `Interrupted`.
    """
    site.target(to)
    wanted: dict[str, Found] = {}
    for name in names:
        found = _points_of(site, name, to) if name in site.config.jobs else [_elsewhere(site, name, to)]
        wanted.update((each.point.id, each) for each in found)
    return _copy(site, to, list(wanted.values()), watch)


def copy_job(site: Site, job: str, to: str) -> CopyReport:
    """Copy the points of a job that ran, into one of the targets that it names. All but stops is in the report."""
    try:
        return _copy(site, to, _points_of(site, job, to), _unseen)
    except Busy as error:  # that run will be done one day; then the next one finds what is missing
        return CopyReport(to, notes=(error.message,))
    except Interrupted:
        raise
    except VBackupError as error:
        return CopyReport(to, error=error)
    except Exception as error:  # a plugin's own; the backups are made, and other jobs must not suffer
        log.debug("copying %s to %s", job, to, exc_info=True)
        return CopyReport(to, error=VBackupError(f"unexpected {type(error).__name__}: {error}"))


def _unseen(event: JobProgress | JobFinished) -> None:
    """Nobody watches."""


def _points_of(site: Site, name: str, to: str) -> list[Found]:
    """Return the points of a job that are to be in the target ``to``."""
    job = site.config.jobs[name]
    if job.target == to:
        raise ConfigError(f"job {name} makes its points in {to}", hint="copy them to another target")
    source, destination = site.target(job.target), site.target(to)
    here = {point.id: point for point in source.points() if point.job == name}
    machines: dict[tuple[str, ...], dict[str, Point]] = defaultdict(dict)
    for point in (*here.values(), *(point for point in destination.points() if point.job == name)):
        machines[point.hypervisor, point.machine_id, point.hypervisor_type][point.id] = point
    protected = {**destination.protected(), **source.protected()}
    now, where = clock.now(), zone(job.timezone)
    return [
        Found(job.target, here[decision.point.id])
        for points in machines.values()
        for decision in decide(points.values(), job.keep, where, protected, now)
        if decision.kept and decision.point.id in here
    ]


def _elsewhere(site: Site, text: str, to: str) -> Found:
    """Return a point, in another target than ``to`` if any other has it."""
    found = find_point(site, text)
    copies = [each for each in list_points(site) if each.point.id == found.point.id]
    return next((each for each in copies if each.target != to), found)


def _copy(site: Site, to: str, wanted: Sequence[Found], watch: Watch) -> CopyReport:
    destination = site.target(to)
    with ExitStack() as stack:
        try:  # two would move the same bytes
            stack.enter_context(locked(site.state_dir, "copies", destination.id, to))
        except Busy as error:
            raise Busy(f"copies into {to} are being made by another run already") from error
        work = Copying(site, to, destination, watch)
        missing = [each for each in wanted if each.point.id not in work.there]
        work.skipped = len(wanted) - len(missing)
        if missing:
            log.info("copying %d restore points into %s", len(missing), to)
            with destination.writer() as writer:
                work.all(writer, sorted(missing, key=_age))
        work.protect(wanted)
    return CopyReport(to, tuple(work.results), work.skipped, tuple(work.notes), work.error)


def _age(found: Found) -> tuple[datetime, int, str]:
    return found.point.time, found.point.sequence, found.point.id
