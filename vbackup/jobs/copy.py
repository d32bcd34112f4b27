"""Copying restore points into other targets: which ones, in which order, and what trouble does to the rest.

Of a job those are copied that its `keep` rules would keep, were all points of both targets in one: what the next prune
of the copies would delete does not travel. It is the oldest first, so that each one after costs what has changed.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

from vbackup.api import (
    AlreadyExists,
    Busy,
    ConfigError,
    Corrupt,
    DiskProgress,
    Interrupted,
    JobFinished,
    JobProgress,
    NotFound,
    Point,
    Target,
    VBackupError,
    Writer,
    clock,
)
from vbackup.config import zone
from vbackup.engine.replicate import Common, Replicate
from vbackup.jobs.locks import locked
from vbackup.jobs.points import Found, find_point, list_points
from vbackup.jobs.retention import decide
from vbackup.jobs.site import Site

log = logging.getLogger(__name__)

Watch = Callable[[JobProgress | JobFinished], None]
"""Hears how far each point is, as of a machine in a job."""


@dataclass(frozen=True)
class PointCopy:
    """What came of one point: bytes read for it and stored, or an error."""

    point: Point
    source: str
    read: int = 0
    stored: int = 0
    error: VBackupError | None = None


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
        work = _Work(site, to, destination, watch)
        missing = [each for each in wanted if each.point.id not in work.there]
        work.skipped = len(wanted) - len(missing)
        if missing:
            log.info("copying %d restore points into %s", len(missing), to)
            with destination.writer() as writer:
                work.all(writer, sorted(missing, key=_age))
        work.protect(wanted)
    return CopyReport(to, tuple(work.results), work.skipped, tuple(work.notes), work.error)


class _Work:
    """Copying into one target."""

    def __init__(self, site: Site, to: str, destination: Target, watch: Watch) -> None:
        self._site = site
        self._to = to
        self._destination = destination
        self._watch = watch
        self.there = {point.id: point for point in destination.points()}
        self._damaged = {damage.point for damage in destination.damaged_points()}
        self._machines: dict[tuple[str, str], list[Point]] = defaultdict(list)
        for point in self.there.values():
            self._machines[_machine(point)].append(point)
        self._sources: dict[str, dict[str, Point]] = {}
        self.results: list[PointCopy] = []
        self.skipped = 0
        self.notes: list[str] = []
        self.error: VBackupError | None = None

    def all(self, writer: Writer, missing: Iterable[Found]) -> None:
        """Copy points, until the writer can take no more."""
        for found in missing:
            try:
                writer.check()
            except VBackupError as error:
                self._raise_if_stopped()
                self.error = type(error)(f"the rest was not copied: {error.message}", hint=error.hint)
                break
            result = self._one(writer, found)
            if result is not None:
                self.results.append(result)
                point, failure = result.point, str(result.error or "")
                self._watch(JobFinished(point.job, point.hypervisor, point.machine, point=point.id, error=failure))
        self.notes += writer.notes

    def _one(self, writer: Writer, found: Found) -> PointCopy | None:
        self._raise_if_stopped()
        point, source = found.point, self._site.target(found.target)

        def report(disk: DiskProgress) -> None:
            self._watch(JobProgress(point.job, point.hypervisor, point.machine, disk))

        work = Replicate(source, self._destination, writer, self._site.stop, report)
        try:
            self._need_no_damage(point)
            made, read = work.run(point, self._common(found))
        except VBackupError as error:
            self._raise_if_stopped()
            if isinstance(error, AlreadyExists) and self._came_meanwhile(point):
                return None
            if isinstance(error, Corrupt | NotFound) and self._is_gone(found):
                log.info("restore point %s was deleted from %s while it was copied", point.id, found.target)
                return None
            return PointCopy(point, found.target, error=error)
        self.there[made.id] = made
        self._machines[_machine(made)].append(made)
        return PointCopy(made, found.target, read, made.stored)

    def _raise_if_stopped(self) -> None:
        if self._site.stop.is_set():
            raise Interrupted(f"copying into {self._to} was stopped: run it again, what was copied is kept")

    def _need_no_damage(self, point: Point) -> None:
        for damaged in self._damaged:
            if damaged and point.id.startswith(damaged):  # some targets know only the beginning of its id
                raise Corrupt(
                    f"target {self._to} has or had this restore point, and it cannot be read there",
                    hint=f"give it up with `vbackup delete {damaged} --target {self._to}`, then copy again",
                )

    def _common(self, found: Found) -> Common | None:
        """Return the machine's newest earlier point that both targets have."""
        here = self._source_points(found.target)
        earlier = [
            point
            for point in self._machines[_machine(found.point)]
            if point.id in here and point.sequence < found.point.sequence
        ]
        best = max(earlier, key=lambda point: point.sequence, default=None)
        return None if best is None else Common(here[best.id], best)

    def _source_points(self, alias: str) -> dict[str, Point]:
        if alias not in self._sources:
            self._sources[alias] = {point.id: point for point in self._site.target(alias).points()}
        return self._sources[alias]

    def _came_meanwhile(self, point: Point) -> bool:
        """Whether somebody else was faster; an object that does not count (see PRUNE.md) is none of that."""
        there = {each.id: each for each in self._destination.points()}
        if point.id in there:
            self.there[point.id] = there[point.id]
            self.skipped += 1
        return point.id in there

    def _is_gone(self, found: Found) -> bool:
        return found.point.id not in {point.id for point in self._site.target(found.target).points()}

    def protect(self, wanted: Sequence[Found]) -> None:
        """Protect copies of protected points: else the rules would delete them, and the next run bring them again."""
        try:
            for alias in dict.fromkeys(found.target for found in wanted if found.target != self._to):
                reasons, known = self._site.target(alias).protected(), self._destination.protected()
                for point in (found.point for found in wanted if found.target == alias):
                    if point.id in reasons and point.id in self.there and point.id not in known:
                        self._destination.protect(self.there[point.id], reasons[point.id])
        except VBackupError as error:
            self.error = self.error or error


def _age(found: Found) -> tuple[datetime, int, str]:
    return found.point.time, found.point.sequence, found.point.id


def _machine(point: Point) -> tuple[str, str]:
    return point.hypervisor_type, point.machine_id
