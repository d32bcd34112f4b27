"""Restoring a group: its machines as they were at one moment, in the order of the configuration.

Nothing is written before each of them was found, and each hypervisor was asked whether it can be done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vbackup.api import ConfigError, NotFound, VBackupError
from vbackup.config import Member
from vbackup.jobs.moments import Moment, moments
from vbackup.jobs.points import at_time, list_points, time_text
from vbackup.jobs.readiness import Waiting
from vbackup.jobs.restore import Announce, Order, Progress, Rehearsal, RestoreOptions, RestoreReport, order_of
from vbackup.jobs.site import Site

_HOW = "use @GROUP@latest or @GROUP@TIME, as `vbackup list @GROUP` shows them"
_ONE_BY_ONE = "restore its machines one by one, by the ids that `vbackup list` shows"


@dataclass(frozen=True)
class Watch:
    """Who hears how far it is; ``waits`` gets the name of each machine that is waited for."""

    progress: Progress
    announce: Announce
    waits: Callable[[str], None]


@dataclass(frozen=True)
class _Step:
    member: Member
    order: Order


class GroupRestore:
    """A group that is to be restored. Making one finds its points, and what is wrong with the request.

    Raises: `ConfigError`, `NotFound`.
    """

    def __init__(self, site: Site, text: str, options: RestoreOptions) -> None:
        """``text`` is ``@group@latest`` or ``@group@TIME``."""
        self.group, when = _parsed(text)
        entry = site.config.groups.get(self.group)
        if entry is None:
            known = ", ".join(f"@{name}" for name in site.config.groups) or "none"
            raise ConfigError(f"there is no group @{self.group}", hint=f"groups: {known}")
        if options.disks:
            raise ConfigError("--disk restores disks of one machine: it does not go with a group")
        if options.name is not None and "*" not in options.name:
            raise ConfigError(
                f"the machines of group @{self.group} cannot all be named {options.name!r}",
                hint="put a * for each one's own name, as in --as '*-copy'",
            )
        self._site = site
        self._start = options.start
        found = moments(list_points(site), self.group, entry)
        moment, passed_over = _choose(found, self.group, when)
        self._steps = [
            _Step(member, order_of(site, moment.points[member.machine], options))
            for member in entry.machines
            if member.machine in moment.points
        ]
        others = tuple(_others(moment, self.group, [member.machine for member in entry.machines]))
        if not self._steps:
            raise NotFound(f"no machine of {time_text(moment.time)} is in group @{self.group} now", hint=_ONE_BY_ONE)
        self.notes = (*passed_over, *others)
        """What there is to know before anything is restored."""
        self._need_places_of_their_own()

    def _need_places_of_their_own(self) -> None:
        places = [(step.order.to, step.order.name) for step in self._steps]
        for to, name in places:
            if places.count((to, name)) > 1:
                raise ConfigError(
                    f"two machines of group @{self.group} would be {to}:{name}",
                    hint="restore them one by one, under other names",
                )

    def rehearse(self, announce: Announce) -> tuple[Rehearsal, ...]:
        """Do for each machine all that comes before the first byte, and undo it. Raises: what the first one raises."""
        return tuple(step.order.rehearse(self._site, announce) for step in self._steps)

    def carry_out(self, watch: Watch) -> tuple[RestoreReport, ...]:
        """Restore, and start if asked: each machine when the one before is ready.

        Raises: what goes wrong first, saying what is done by then, which stays; `Interrupted`.
        """
        self.rehearse(watch.announce)
        done: list[RestoreReport] = []
        for index, step in enumerate(self._steps):
            try:
                done.append(step.order.carry_out(self._site, _of(step.order.name, watch.progress), watch.announce))
            except VBackupError as error:
                raise self._stopped(error, index) from error
            if self._start and step.member.ready is not None:
                watch.waits(step.order.name)
                waiting = Waiting(step.order.hypervisor, step.order.name, self._site.stop)
                try:
                    waiting.until(step.member.ready)
                except VBackupError as error:
                    raise self._stopped(error, index + 1) from error
        return tuple(done)

    def _stopped(self, error: VBackupError, at: int) -> VBackupError:
        done = ", ".join(step.order.name for step in self._steps[:at])
        rest = self._steps[at:]
        if not rest:
            message = f"group @{self.group} is restored, but {error.message}"
            return _like(error, message, error.hint)
        points = ", ".join(f"{step.order.found.point.machine} ({step.order.found.point.id[:8]})" for step in rest)
        so_far = f"restored: {done}; " if done else ""
        hint = f"{error.hint}; " if error.hint else ""
        return _like(
            error,
            f"the restore of group @{self.group} stopped: {error.message} ({so_far}not restored: {points})",
            f"{hint}what is restored stays; go on with `vbackup restore ID` for each of the rest, in that order",
        )


def _of(machine: str, progress: Progress) -> Progress:
    return lambda disk, done, size: progress(f"{machine} {disk}", done, size)


def _like(error: VBackupError, message: str, hint: str) -> VBackupError:
    return type(error)(message, hint=hint, transient=error.transient)


def _parsed(text: str) -> tuple[str, str]:
    group, _, when = text.removeprefix("@").partition("@")
    if not group or not when.strip():
        raise ConfigError(f"{text} has no time", hint=_HOW)
    return group, when.strip()


def _choose(found: Sequence[Moment], group: str, when: str) -> tuple[Moment, tuple[str, ...]]:
    """Return the one that is meant, and phrases about newer ones that are not complete."""
    if not found:
        raise NotFound(
            f"there are no restore points of group @{group} that were made together",
            hint=f"run a job that has '@{group}' among its machines; `vbackup list` shows what each machine has",
        )
    passed_over: list[str] = []
    for moment in found if when == "latest" else _at(found, group, when):
        if not moment.missing:
            return moment, tuple(passed_over)
        passed_over.append(f"the points of {time_text(moment.time)} are not complete: {_lacking(moment)}")
    some = "; ".join(passed_over[:3])
    raise NotFound(
        f"group @{group} has no complete points{'' if when == 'latest' else f' at {when}'}: {some}",
        hint=_ONE_BY_ONE,
    )


def _others(moment: Moment, group: str, members: Sequence[str]) -> Iterator[str]:
    """Yield phrases about machines that were in the group then or are now, and not both."""
    for machine in members:
        if machine not in moment.points:
            yield f"{machine} was not in group @{group} at {time_text(moment.time)}: it is not restored"
    for machine, found in moment.points.items():
        if machine not in members:
            yield f"{machine} is not in group @{group} any more: it is not restored; its point is {found.point.id[:8]}"


def _lacking(moment: Moment) -> str:
    return f"without {', '.join(moment.missing)}"


def _at(known: Sequence[Moment], group: str, when: str) -> list[Moment]:
    """Return the only one of which any point is of a time, given as a whole or by its beginning."""
    found = {each.point.id for each in at_time([each for moment in known for each in moment.points.values()], when)}
    hits = [moment for moment in known if any(each.point.id in found for each in moment.points.values())]
    if not hits:
        raise NotFound(f"there are no restore points of group @{group} at {when}", hint=f"`vbackup list @{group}`")
    if len(hits) > 1:
        some = ", ".join(time_text(moment.time) for moment in hits[:4])
        raise ConfigError(f"@{group}@{when} could be of several times: {some}", hint="give more of it")
    return hits
