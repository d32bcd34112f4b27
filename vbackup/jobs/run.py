"""Running jobs: many machines at once into one writer, each with a result of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vbackup.api import (
    Interrupted,
    JobFinished,
    JobProgress,
    JobStarted,
    MachineRef,
    Point,
    Task,
    VBackupError,
    Writer,
)
from vbackup.engine.backup import BackUp, Made
from vbackup.jobs.copy import CopyReport, copy_job
from vbackup.jobs.locks import locked
from vbackup.jobs.select import Selection, select
from vbackup.jobs.site import Site

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""A capture that was lost (a guest that powered off, a hypervisor that restarted) is made once more."""
_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class MachineResult:
    """What came of one machine: a restore point or an error."""

    task: Task
    target: str
    point: Point | None
    error: VBackupError | None
    seconds: float
    leftovers: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user must know although there is a point."""
        return (*(self.point.warnings if self.point else ()), *self.leftovers)


@dataclass(frozen=True)
class RunReport:
    """What came of a run."""

    results: tuple[MachineResult, ...]
    swept: tuple[str, ...] = ()
    copies: tuple[tuple[str, CopyReport], ...] = ()
    """What came of copying, by job."""

    @property
    def failed(self) -> bool:
        """Whether any machine has no new point, or any point no copy that it should have."""
        return any(result.error is not None for result in self.results) or any(copy.failed for _, copy in self.copies)

    @property
    def warnings(self) -> bool:
        """Whether any machine, or the copying, has warnings."""
        return any(result.warnings for result in self.results) or any(copy.notes for _, copy in self.copies)


def run(site: Site, names: Sequence[str]) -> RunReport:
    """Run what ``names`` stand for (see `select`). One machine's failure is in its result and stops nothing else.

    The same goes for a target that cannot be used: it fails the machines of its jobs, whatever the reason.

    When a job's machines are done, its points that are missing where it copies to are copied, those of earlier runs and
    of other machines, too: what failed one night is made up for in the next.

    Raises: `ConfigError` on names that match nothing; `Interrupted`.
    """
    selection = select(site, names)
    results: list[MachineResult] = []
    for task, error in selection.failed:
        results.append(_failed(site, task, error))
    swept: list[str] = []
    copies: list[tuple[str, CopyReport]] = []
    for job, tasks in selection.tasks.items():
        results += _job(site, job, tasks, selection, swept)
        if site.stop.is_set():
            raise Interrupted("the run was stopped")
        copies += [(job, copy_job(site, job, to)) for to in site.config.jobs[job].copies]
    return RunReport(tuple(results), tuple(swept), tuple(copies))


def _job(site: Site, name: str, tasks: Sequence[Task], selection: Selection, swept: list[str]) -> list[MachineResult]:
    results: list[MachineResult] = []
    try:
        _Job(site, name, selection, results, swept).run(tasks)
    except Interrupted:
        raise
    except VBackupError as error:  # its target is of no use; those of other jobs may be
        done = {result.task for result in results}
        results = [replace(result, leftovers=(*result.leftovers, str(error))) for result in results]
        results += [_failed(site, task, error) for task in tasks if task not in done]
    return results


def _failed(site: Site, task: Task, error: VBackupError) -> MachineResult:
    site.registry.emit_finished(JobFinished(task.job, task.hypervisor, task.machine, error=str(error)))
    return MachineResult(task, site.config.jobs[task.job].target, None, error, 0.0)


@dataclass
class _Job:
    site: Site
    name: str
    selection: Selection
    results: list[MachineResult]
    swept: list[str]
    _points: dict[tuple[str, str], Point] = field(default_factory=dict)

    def run(self, tasks: Sequence[Task]) -> None:
        job = self.site.config.jobs[self.name]
        target = self.site.target(job.target)
        owner = target.id
        for point in sorted(target.points(), key=lambda point: point.sequence):  # a clock may have been wrong
            self._points[point.hypervisor_type, point.machine_id] = point
        self._sweep({task.hypervisor for task in tasks}, owner)
        with target.writer() as writer:
            work = _Work(self.site, job.target, owner, writer, self)
            for _, result in self.site.executor().run(tasks, work, job.parallel):
                self.results.append(result)

    def _sweep(self, hypervisors: set[str], owner: str) -> None:
        for alias in sorted(hypervisors):
            try:
                self.swept += self.site.hypervisor(alias).sweep(owner)
            except VBackupError as error:  # leftovers are tried again next time; the backup is what matters
                log.warning("leftovers of earlier runs on %s could not be removed: %s", alias, error)

    def previous(self, hypervisor_type: str, machine: MachineRef) -> Point | None:
        """Return the machine's newest point in the target."""
        return self._points.get((hypervisor_type, machine.id))

    def machine(self, task: Task) -> MachineRef:
        """Return what was listed for a task."""
        return self.selection.machines[task]


@dataclass
class _Work:
    site: Site
    target: str
    owner: str
    writer: Writer
    job: _Job

    def __call__(self, task: Task) -> MachineResult:
        registry = self.site.registry
        began = time.monotonic()
        registry.emit_started(JobStarted(task.job, task.hypervisor, task.machine))
        made: Made | None = None
        failure: VBackupError | None = None
        try:
            made = self._attempts(task)
        except VBackupError as error:
            failure = error
        except Exception as error:  # a plugin's own; one machine's trouble must not stop the others
            log.debug("backing up %s", task.machine, exc_info=True)
            failure = VBackupError(f"{task.machine}: unexpected {type(error).__name__}: {error}")
        registry.emit_finished(
            JobFinished(
                task.job, task.hypervisor, task.machine,
                point=made.point.id if made else "", error=str(failure) if failure else "",
                warnings=made.point.warnings if made else (),
            )
        )  # fmt: skip
        return MachineResult(
            task, self.target, made.point if made else None, failure, time.monotonic() - began,
            made.leftovers if made else (),
        )  # fmt: skip

    def _attempts(self, task: Task) -> Made:
        for attempt in range(1, ATTEMPTS + 1):
            if self.site.stop.is_set():
                raise Interrupted(f"{task.machine} was not backed up: the run was stopped")
            try:
                return self._attempt(task, self.site.stop)
            except VBackupError as error:
                if not error.transient or attempt == ATTEMPTS:
                    raise
                log.warning("%s: %s; trying again", task.machine, error)
                self.site.stop.wait(_PAUSE_SECONDS)
        raise AssertionError("unreachable")

    def _attempt(self, task: Task, stop: threading.Event) -> Made:
        machine = self.job.machine(task)
        hypervisor = self.site.hypervisor(task.hypervisor)
        registry, quiesce = self.site.registry, self.site.config.jobs[task.job].quiesce
        back_up = BackUp(
            hypervisor, task.hypervisor, task.job, self.owner, self.writer, quiesce, stop,
            lambda disk: registry.emit_progress(JobProgress(task.job, task.hypervisor, task.machine, disk)),
        )  # fmt: skip
        with locked(self.site.state_dir, self.owner, hypervisor.name, machine.id, machine.name):
            return back_up.run(machine, self.job.previous(hypervisor.name, machine))
