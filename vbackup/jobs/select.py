"""Which machines a job means: ``hypervisor:glob`` selectors against what the hypervisors list."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field

from vbackup.api import ConfigError, MachineRef, Task, VBackupError
from vbackup.jobs.site import Site


@dataclass
class Selection:
    """Machines by job, and hypervisors that could not be asked."""

    tasks: dict[str, list[Task]] = field(default_factory=dict)
    machines: dict[Task, MachineRef] = field(default_factory=dict)
    failed: list[tuple[Task, VBackupError]] = field(default_factory=list)


def select(site: Site, names: Sequence[str]) -> Selection:
    """Return what ``names`` stand for: jobs, ``hypervisor:glob`` or machine globs; all jobs when there are none.

    Raises: `ConfigError` when a name or a job matches no machine at all.
    """
    jobs = site.config.jobs
    if not jobs:
        raise ConfigError("the configuration has no jobs", hint="add one under `jobs:`")
    wanted = {name for name in names if name in jobs}
    globs = [name for name in names if name not in jobs]
    selection = Selection()
    listed: dict[str, list[MachineRef] | VBackupError] = {}
    matched: set[str] = set()
    for job in jobs:
        if names and not globs and job not in wanted:
            continue
        tasks = _job(site, job, listed, selection)
        if names and job not in wanted:
            tasks = [task for task in tasks if _note_matches(task, globs, matched)]
        elif not tasks and not selection.failed:
            raise ConfigError(f"job {job} matches no machine", hint=f"its selectors: {', '.join(jobs[job].machines)}")
        if tasks:
            selection.tasks[job] = tasks
    for name in globs:
        if name not in matched and not selection.failed:
            raise ConfigError(
                f"{name!r} is no job, and no machine of a job matches it", hint=f"jobs: {', '.join(sorted(jobs))}"
            )
    return selection


def _job(site: Site, job: str, listed: dict[str, list[MachineRef] | VBackupError], selection: Selection) -> list[Task]:
    selectors = site.config.jobs[job].machines
    tasks: dict[Task, None] = {}
    for selector in (s for s in selectors if not s.startswith("!")):
        alias, _, glob = selector.partition(":")
        machines = _machines(site, alias, listed)
        if isinstance(machines, VBackupError):
            task = Task(job, alias, glob)
            if task not in (failed for failed, _ in selection.failed):
                selection.failed.append((task, machines))
            continue
        for machine in machines:
            excluded = (s[1:].partition(":") for s in selectors if s.startswith("!"))
            if fnmatch.fnmatchcase(machine.name, glob) and not any(
                alias == other and fnmatch.fnmatchcase(machine.name, pattern) for other, _, pattern in excluded
            ):
                task = Task(job, alias, machine.name)
                tasks[task] = None
                selection.machines[task] = machine
    return list(tasks)


def _machines(
    site: Site, alias: str, listed: dict[str, list[MachineRef] | VBackupError]
) -> list[MachineRef] | VBackupError:
    if alias not in listed:
        try:
            listed[alias] = site.hypervisor(alias).machines()
        except ConfigError:
            raise
        except VBackupError as error:  # the others' machines must not suffer for it
            listed[alias] = error
    return listed[alias]


def _note_matches(task: Task, globs: Sequence[str], matched: set[str]) -> bool:
    hits = [
        glob
        for glob in globs
        if fnmatch.fnmatchcase(task.machine, glob) or fnmatch.fnmatchcase(f"{task.hypervisor}:{task.machine}", glob)
    ]
    matched.update(hits)
    return bool(hits)
