"""Points on their way into another target, each on top of the last one there, and each with a result of its own."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from vbackup.api import (
    AlreadyExists,
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
)
from vbackup.engine.replicate import Common, Replicate
from vbackup.jobs.points import Found
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


class Copying:
    """The copying of points into one target, one after another."""

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


def _machine(point: Point) -> tuple[str, str]:
    return point.hypervisor_type, point.machine_id
