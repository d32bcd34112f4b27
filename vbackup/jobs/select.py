"""Which machines a job means: its selectors against what the hypervisors list, and its groups."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vbackup.api import ConfigError, Interrupted, MachineRef, NotFound, PluginError, Task, VBackupError
from vbackup.jobs import selectors
from vbackup.jobs.site import Site

log = logging.getLogger(__name__)


@dataclass
class Members:
    """The machines of a group's task, and those that are not captured with them: why, by ``hypervisor:machine``."""

    tasks: list[Task] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    failed: list[tuple[Task, VBackupError]] = field(default_factory=list)


@dataclass
class Selection:
    """Machines by job, and hypervisors that could not be asked."""

    tasks: dict[str, list[Task]] = field(default_factory=dict)
    """Of each job; a group is one task."""
    machines: dict[Task, MachineRef] = field(default_factory=dict)
    members: dict[Task, Members] = field(default_factory=dict)
    """Of each group's task."""
    failed: list[tuple[Task, VBackupError]] = field(default_factory=list)

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
        if not chosen.selection.failed:
            raise _unknown(site, name, chosen.listing)
    return chosen.selection


def _unknown(site: Site, name: str, listing: _Listing) -> ConfigError:
    if name.startswith("@"):
        known = ", ".join(f"@{group}" for group in site.config.groups) or "none"
        return ConfigError(f"no job has {name!r} among its machines", hint=f"groups: {known}")
    return ConfigError(
        f"{name!r} is no job, and no machine of a job matches it",
        hint=f"jobs: {', '.join(sorted(site.config.jobs))}; {selectors.examples(listing.all())}",
    )


class _Listing:
    """What the hypervisors list, each asked once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._listed: dict[str, list[MachineRef] | VBackupError] = {}

    def of(self, alias: str) -> list[MachineRef] | VBackupError:
        """Return a hypervisor's machines, or why it cannot be asked."""
        if alias not in self._listed:
            try:
                self._listed[alias] = list(self._site.hypervisor(alias).machines())
            except ConfigError:
                raise
            except Interrupted as error:
                if self._site.stop.is_set():
                    raise
                self._listed[alias] = PluginError(f"{alias}: stopped, and nobody had stopped it: {error.message}")
            except VBackupError as error:  # the others' machines must not suffer for it
                self._listed[alias] = error
            except Exception as error:  # a plugin's own: nor for that
                log.debug("listing the machines of %s", alias, exc_info=True)
                self._listed[alias] = self._site.registry.explained(error, alias)
        return self._listed[alias]

    def unclear(self, alias: str, machine: MachineRef) -> VBackupError | None:
        """Return why a machine cannot be told from another: the points of both would be one row, for `keep`, too."""
        machines = self.of(alias)
        alike = [] if isinstance(machines, VBackupError) else [each for each in machines if each.id == machine.id]
        if len(alike) < 2:
            return None
        names = ", ".join(sorted(each.name for each in alike))
        return PluginError(
            f"the hypervisor plugin lists machines with the same id {machine.id!r:.80}: {names}; their restore points "
            "could not be told apart",
            hint="if one is a copy of the other, give it an id of its own",
        )

    def all(self) -> Iterator[tuple[str, MachineRef]]:
        """Yield what was listed."""
        for alias, machines in self._listed.items():
            if not isinstance(machines, VBackupError):
                yield from ((alias, machine) for machine in machines)


class _Choice:
    """What of all jobs was asked for."""

    def __init__(self, site: Site, names: Sequence[str]) -> None:
        self._site = site
        self._wanted = {name for name in names if name in site.config.jobs}
        self._others = [name for name in names if name not in site.config.jobs]
        self._matched: set[str] = set()
        self.selection = Selection()
        self.listing = _Listing(site)

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
        for task in tasks:
            if task.group:
                self.selection.failed += self.selection.members[task].failed
        tasks = [task for task in tasks if not task.group or self.selection.members[task].tasks]
        if tasks:
            self.selection.tasks[job] = tasks
        elif not self.selection.failed and (job in self._wanted or not self._others):
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
            if machine is not None and (unclear := self.listing.unclear(alias, machine)):
                found.failed.append((task, unclear))
            elif machine is None:
                missing = NotFound(f"group {group}: there is no machine {name!r} on {alias}", hint="see `groups:`")
                found.failed.append((task, missing))
            elif self._is_left_out(job, alias, machine):
                found.left_out[member.machine] = f"job {job} leaves it out"
            else:
                self.selection.machines[task] = machine
                found.tasks.append(task)
        found.left_out.update({f"{task.hypervisor}:{task.machine}": error.message for task, error in found.failed})
        return found

    def _matching(self, job: str, selector: str) -> Iterator[Task]:
        alias, _, pattern = selector.partition(":")
        machines = self.listing.of(alias)
        if isinstance(machines, VBackupError):
            task = Task(job, alias, pattern)
            if task not in (failed for failed, _ in self.selection.failed):
                self.selection.failed.append((task, machines))
            return
        for machine in machines:
            if selectors.matches(machine, pattern) and not self._is_left_out(job, alias, machine):
                task = Task(job, alias, machine.name)
                if unclear := self.listing.unclear(alias, machine):
                    if task not in (failed for failed, _ in self.selection.failed):
                        self.selection.failed.append((task, unclear))
                    continue
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
        members = self.selection.members[task].tasks
        named = [member for member in members if self._is_named(member)]
        return [task] if named and named == members else named

    def _is_named(self, task: Task) -> bool:
        machine = self.selection.machines[task]
        hits = [text for text in self._others if selectors.names(task.hypervisor, machine, text)]
        self._matched.update(hits)
        return bool(hits)
