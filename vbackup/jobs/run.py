"""Running jobs: many machines at once into one writer, each with a result of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from vbackup.engine.together import Member, Together
from vbackup.jobs.copy import CopyReport, copy_job
from vbackup.jobs.kept import really_kept
from vbackup.jobs.locks import locked
from vbackup.jobs.select import Selection, excluded_disks, select
from vbackup.jobs.site import Site

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""A capture that was lost (a guest that powered off, a hypervisor that restarted) is made once more."""
_PAUSE_SECONDS = 2.0
GROUP_SECONDS = 60.0
"""How long the machines of a group that are ready wait for the others: those may hang, and a snapshot costs."""


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
    for task, error in selection.failed.items():
        results.append(_failed(site, task, error))
    swept: list[str] = []
    copies: list[tuple[str, CopyReport]] = []
    for job, tasks in selection.tasks.items():
        results += _job(site, job, tasks, selection, swept)
        if site.stop.is_set():
            raise Interrupted("the run was stopped")
        copies += [(job, copy_job(site, job, to)) for to in site.config.jobs[job].copies]
    site.registry.settle()
    return RunReport(tuple(results), tuple(swept), tuple(copies))


def _job(site: Site, name: str, tasks: Sequence[Task], selection: Selection, swept: list[str]) -> list[MachineResult]:
    results: list[MachineResult] = []
    try:
        _Job(site, name, selection, results, swept).run(tasks)
    except Exception as error:  # its target is of no use; those of other jobs may be
        if isinstance(error, Interrupted) and site.stop.is_set():
            raise
        log.debug("running job %s", name, exc_info=True)
        error = error if isinstance(error, VBackupError) else site.registry.explained(error, f"job {name}")
        done = {result.task for result in results}
        results = [replace(result, leftovers=(*result.leftovers, str(error))) for result in results]
        machines = [each for task in tasks for each in selection.machines_of(task)]
        results += [_failed(site, task, error) for task in machines if task not in done]
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
        self._sweep({each.hypervisor for task in tasks for each in self.selection.machines_of(task)}, owner)
        with target.writer() as writer:
            work = _Work(self.site, job.target, owner, writer, self)
            for _, results in self.site.execute(tasks, work, job.parallel):
                self.results += results
        self.results[:] = really_kept(self.site, target, self.results)

    def _sweep(self, hypervisors: set[str], owner: str) -> None:
        for alias in sorted(hypervisors):
            try:
                self.swept += self.site.hypervisor(alias).sweep(owner)
            except Exception as error:  # leftovers are tried again next time; the backup is what matters
                log.debug("sweeping %s", alias, exc_info=True)
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

    def __call__(self, task: Task) -> tuple[MachineResult, ...]:
        return self._group(task) if task.group else (self._machine(task),)

    def _group(self, task: Task) -> tuple[MachineResult, ...]:
        """Back up the machines of a group, all at once: a thread each, whatever the job's ``parallel``."""
        members = self.job.selection.members[task]
        machines = {f"{each.hypervisor}:{each.machine}": each for each in members.tasks}
        at_once = self.site.config.jobs[task.job].parallel
        together = Together(
            task.group, machines.keys(), members.left_out, self.site.stop, at_once=at_once, longest_wait=GROUP_SECONDS
        )
        parts = {name: together.member(name) for name in machines}
        with ThreadPoolExecutor(len(machines), "group") as pool:
            futures = {name: pool.submit(self._member, each, parts[name]) for name, each in machines.items()}
        results = {name: future.result() for name, future in futures.items()}
        return tuple(
            replace(result, leftovers=(*result.leftovers, *parts[name].notes())) if result.point else result
            for name, result in results.items()
        )

    def _member(self, task: Task, part: Member) -> MachineResult:
        result = self._machine(task, part)
        if result.error is not None:
            part.leave(result.error.message)
        return result

    def _machine(self, task: Task, part: Member | None = None) -> MachineResult:
        registry = self.site.registry
        began = time.monotonic()
        registry.emit_started(JobStarted(task.job, task.hypervisor, task.machine))
        made: Made | None = None
        failure: VBackupError | None = None
        try:
            made = self._attempts(task, part)
        except VBackupError as error:
            failure = error
        except Exception as error:  # a plugin's own; one machine's trouble must not stop the others
            log.debug("backing up %s", task.machine, exc_info=True)
            failure = registry.explained(error, task.machine)
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

    def _attempts(self, task: Task, part: Member | None) -> Made:
        for attempt in range(1, ATTEMPTS + 1):
            if self.site.stop.is_set():
                raise Interrupted(f"{task.machine} was not backed up: the run was stopped")
            try:
                return self._attempt(task, self.site.stop, part)
            except VBackupError as error:
                if not error.transient or attempt == ATTEMPTS:
                    raise
                if part is not None:
                    part.again()
                log.warning("%s: %s; trying again", task.machine, error)
                self.site.stop.wait(_PAUSE_SECONDS)
        raise AssertionError("unreachable")

    def _attempt(self, task: Task, stop: threading.Event, part: Member | None) -> Made:
        machine = self.job.machine(task)
        hypervisor = self.site.hypervisor(task.hypervisor)
        registry, entry = self.site.registry, self.site.config.jobs[task.job]
        back_up = BackUp(
            hypervisor, task.hypervisor, task.job, self.owner, self.writer, entry.quiesce, stop,
            lambda disk: registry.emit_progress(JobProgress(task.job, task.hypervisor, task.machine, disk)),
            memory=entry.memory, exclude=excluded_disks(entry, task.hypervisor, machine), member=part,
        )  # fmt: skip
        with locked(self.site.state_dir, self.owner, hypervisor.name, machine.id, machine.name):
            return back_up.run(machine, self.job.previous(hypervisor.name, machine))
