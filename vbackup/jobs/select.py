"""Which machines a job means: its selectors against what the hypervisors list, and its groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vbackup.api import ConfigError, MachineRef, NotFound, Task, VBackupError
from vbackup.config.models import JobEntry
from vbackup.jobs import selectors
from vbackup.jobs.listing import Listing
from vbackup.jobs.site import Site


@dataclass
class Members:
    """The machines of a group's task, and those that are not captured with them: why, by ``hypervisor:machine``."""

    tasks: list[Task] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[Task, VBackupError]] = field(default_factory=list)


@dataclass
class Selection:
    """Machines by job, and what cannot be backed up."""

    tasks: dict[str, list[Task]] = field(default_factory=dict)
    """Of each job; a group is one task."""
    machines: dict[Task, MachineRef] = field(default_factory=dict)
    members: dict[Task, Members] = field(default_factory=dict)
    """Of each group's task."""
    failed: dict[Task, VBackupError] = field(default_factory=dict)
    """Machines, and selectors for hypervisors that could not be asked: why."""

    def machines_of(self, task: Task) -> list[Task]:
        """Return the tasks of the machines that a task is for: itself, or those of its group."""
        return self.members[task].tasks if task.group else [task]


def select(site: Site, names: Sequence[str]) -> Selection:
    """Return what ``names`` stand for: jobs, ``@group`` or machines (see `selectors`); all jobs when there are none.

    Raises: `ConfigError` when a name or a job matches no machine at all.
    """
    jobs = site.config.jobs
    if not jobs:
        raise ConfigError("the configuration has no jobs", hint="add one under `jobs:`")
    chosen = _Choice(site, names)
    for job in jobs:
        if chosen.may_have(job):
            chosen.add(job)
    for name in chosen.unmatched():
        if chosen.listing.is_whole:
            raise _unknown(site, name, chosen.listing)
    return chosen.selection


def _unknown(site: Site, name: str, listing: Listing) -> ConfigError:
    if name.startswith("@"):
        known = ", ".join(f"@{group}" for group in site.config.groups) or "none"
        return ConfigError(f"no job has {name!r} among its machines", hint=f"groups: {known}")
    return ConfigError(
        f"{name!r} is no job, and no machine of a job matches it",
        hint=f"jobs: {', '.join(sorted(site.config.jobs))}; {selectors.examples(listing.all())}",
    )


def excluded_disks(job: JobEntry, hypervisor: str, machine: MachineRef) -> frozenset[str]:
    """Return the keys of a machine's disks that a job leaves out, of all its `exclude_disks` that mean the machine."""
    found: set[str] = set()
    for machines, keys in job.exclude_disks.items():
        alias, _, pattern = machines.partition(":")
        if alias == hypervisor and selectors.matches(machine, pattern):
            found.update(keys)
    return frozenset(found)


class _Choice:
    """What of all jobs was asked for."""

    def __init__(self, site: Site, names: Sequence[str]) -> None:
        self._site = site
        self._wanted = {name for name in names if name in site.config.jobs}
        self._others = [name for name in names if name not in site.config.jobs]
        self._matched: set[str] = set()
        self.selection = Selection()
        self.listing = Listing(site)

    def may_have(self, job: str) -> bool:
        """Whether anything of a job may be meant."""
        return job in self._wanted or bool(self._others) or not self._wanted

    def unmatched(self) -> list[str]:
        """Names that nothing was found for."""
        return [name for name in self._others if name not in self._matched]

    def add(self, job: str) -> None:
        """Take what is meant of a job."""
        tasks = self._tasks(job)
        if self._others and job not in self._wanted:
            tasks = [kept for task in tasks for kept in self._narrowed(task)]
        selection = self.selection
        for task in tasks:
            if task.group:
                selection.failed.update(selection.members[task].failed)
            elif unclear := self.listing.unclear(task.hypervisor, selection.machines[task]):
                selection.failed[task] = unclear
        tasks = [task for task in tasks if selection.machines_of(task) and task not in selection.failed]
        if tasks:
            selection.tasks[job] = tasks
        elif (job in self._wanted or not self._others) and not any(task.job == job for task in selection.failed):
            raise ConfigError(
                f"job {job} matches no machine",
                hint=f"its selectors: {', '.join(self._site.config.jobs[job].machines)}; "
                f"{selectors.examples(self.listing.all())}",
            )

    def _tasks(self, job: str) -> list[Task]:
        wanted = [each for each in self._site.config.jobs[job].machines if not each.startswith("!")]
        tasks: dict[Task, None] = {}
        grouped: set[Task] = set()
        for group in (each[1:] for each in wanted if each.startswith("@")):
            task = Task(job, "", "", group)
            self.selection.members[task] = self._members(job, group)
            grouped.update(self.selection.members[task].tasks)
            tasks[task] = None
        for selector in (each for each in wanted if not each.startswith("@")):
            tasks.update({task: None for task in self._matching(job, selector) if task not in grouped})
        return list(tasks)

    def _members(self, job: str, group: str) -> Members:
        found = Members()
        for member in self._site.config.groups[group].machines:
            alias, _, name = member.machine.partition(":")
            machines = self.listing.of(alias)
            task = Task(job, alias, name)
            if isinstance(machines, VBackupError):
                found.failed.append((task, machines))
                continue
            machine = next((each for each in machines if each.name == name), None)
            if machine is None:
                missing = NotFound(f"group {group}: there is no machine {name!r} on {alias}", hint="see `groups:`")
                found.failed.append((task, missing))
            elif self._is_left_out(job, alias, machine):
                found.left_out[member.machine] = f"job {job} leaves it out"
            else:
                self.selection.machines[task] = machine
                if unclear := self.listing.unclear(alias, machine):
                    found.failed.append((task, unclear))
                else:
                    found.tasks.append(task)
        found.left_out.update({f"{task.hypervisor}:{task.machine}": error.message for task, error in found.failed})
        return found

    def _matching(self, job: str, selector: str) -> Iterator[Task]:
        alias, _, pattern = selector.partition(":")
        machines = self.listing.of(alias)
        if isinstance(machines, VBackupError):
            self.selection.failed[Task(job, alias, pattern)] = machines
            return
        for machine in machines:
            if selectors.matches(machine, pattern) and not self._is_left_out(job, alias, machine):
                task = Task(job, alias, machine.name)
                self.selection.machines[task] = machine
                yield task

    def _is_left_out(self, job: str, alias: str, machine: MachineRef) -> bool:
        for selector in (each[1:] for each in self._site.config.jobs[job].machines if each.startswith("!")):
            if selector.startswith("@"):
                members = {member.machine for member in self._site.config.groups[selector[1:]].machines}
                if f"{alias}:{machine.name}" in members:
                    return True
            else:
                other, _, pattern = selector.partition(":")
                if alias == other and selectors.matches(machine, pattern):
                    return True
        return False

    def _narrowed(self, task: Task) -> list[Task]:
        """Return what the names leave of a task: of a group all, or machines of it alone."""
        if not task.group:
            return [task] if self._is_named(task) else []
        if f"@{task.group}" in self._others:
            self._matched.add(f"@{task.group}")
            return [task]
        found = self.selection.members[task]
        members = [*found.tasks, *(member for member, _ in found.failed if member in self.selection.machines)]
        named = [member for member in members if self._is_named(member)]
        return [task] if named and named == members else named

    def _is_named(self, task: Task) -> bool:
        machine = self.selection.machines[task]
        hits = [text for text in self._others if selectors.names(task.hypervisor, machine, text)]
        self._matched.update(hits)
        return bool(hits)
