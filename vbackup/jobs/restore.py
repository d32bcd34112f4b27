"""Restoring a point: where it goes, and as what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vbackup.api import ConfigError, Hypervisor, Point, RestoreDisk, RestoreRequest
from vbackup.engine.restore import Restore
from vbackup.jobs.points import Found, find_point
from vbackup.jobs.site import Site

Progress = Callable[[str, int, int], None]
"""``progress(disk, done, size)`` counts bytes of disk."""

Announce = Callable[[Point, Sequence[str]], None]
"""Hears, before a byte is written, what of a point cannot be put back as it was."""


@dataclass(frozen=True)
class RestoreOptions:
    """What the user asked for; see `RestoreRequest`."""

    to: str | None = None
    name: str | None = None
    """A ``*`` in it is the machine's name."""
    disks: Mapping[str, Path] = field(default_factory=dict)
    format: str | None = None
    overwrite: bool = False
    start: bool = False
    memory: bool = True
    """Whether a machine goes on from its memory, where the point has it."""


@dataclass(frozen=True)
class RestoreReport:
    """What came of it."""

    point: Point
    result: str
    bytes_written: int
    notes: tuple[str, ...]
    """All of them, those that were announced first."""


@dataclass(frozen=True)
class Rehearsal:
    """What a restore would do, and where."""

    point: Point
    name: str
    """The machine's, if one is made."""
    to: str
    """The hypervisor's name in the configuration; empty for files alone."""
    files: Mapping[str, Path]
    """Where only disks are restored."""
    disks: tuple[RestoreDisk, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """A point, where it goes and how: nothing that can be told from here is wrong with it."""

    found: Found
    to: str
    hypervisor: Hypervisor
    request: RestoreRequest
    memory: bool

    @property
    def name(self) -> str:
        """What the machine is called there."""
        return self.request.name or self.found.point.machine

    def carry_out(self, site: Site, progress: Progress, announce: Announce) -> RestoreReport:
        """Restore. Raises: all that `Hypervisor.restore` raises before anything is written, and what writing raises."""
        point = self.found.point
        done = self._work(site, progress, announce).run(point, self.request, memory=self.memory)
        return RestoreReport(point, done.result, done.written, done.notes)

    def rehearse(self, site: Site, announce: Announce) -> Rehearsal:
        """Do all that comes before the first byte, and undo it. Raises: as `carry_out`."""
        point = self.found.point
        plan = self._work(site, _uncounted, announce).rehearse(point, self.request, memory=self.memory)
        return Rehearsal(point, self.name, self.to, self.request.disks, plan.disks, plan.notes)

    def _work(self, site: Site, progress: Progress, announce: Announce) -> Restore:
        told = partial(announce, self.found.point)
        return Restore(site.target(self.found.target), self.hypervisor, site.stop, progress, told)


def order(site: Site, text: str, options: RestoreOptions) -> Order:
    """Find the point that ``text`` names, and where it goes. Raises: `ConfigError`, `NotFound`."""
    if options.disks and (options.name or options.start):
        raise ConfigError("--disk restores disks only: it does not go with --as or --start")
    found = find_point(site, text)
    keys = [disk.key for disk in found.point.disks]
    for key in options.disks:
        if key not in keys:
            raise ConfigError(f"{text} has no disk {key!r}", hint=f"its disks: {', '.join(keys) or 'none'}")
    return order_of(site, found, options)


def order_of(site: Site, found: Found, options: RestoreOptions) -> Order:
    """Return how a point that was found is restored. Raises: `ConfigError` when no hypervisor is meant."""
    request = RestoreRequest(
        name=options.name.replace("*", found.point.machine) if options.name is not None else None,
        disks={key: path.absolute() for key, path in options.disks.items()},
        format=options.format,
        overwrite=options.overwrite,
        start=options.start,
    )
    to = _destination(site, found.point, options)
    return Order(found, to, site.hypervisor(to) if to else site.file_writer(), request, options.memory)


def _uncounted(disk: str, done: int, size: int) -> None:
    """Nothing is written."""


def _destination(site: Site, point: Point, options: RestoreOptions) -> str:
    """Return the name of a hypervisor; nothing when files are written without one."""
    if options.to is not None:
        return options.to
    if options.disks:
        return ""
    configured = site.config.hypervisors
    same_type = [alias for alias, entry in configured.items() if entry.type == point.hypervisor_type]
    if point.hypervisor in same_type:
        return point.hypervisor
    if len(same_type) == 1:
        return same_type[0]
    raise ConfigError(
        f"{point.machine} was on {point.hypervisor} ({point.hypervisor_type}), which is not configured here",
        hint=f"say where to with --to: {', '.join(sorted(configured)) or 'no hypervisor is configured'}",
    )
