"""Restoring a point: where it goes, and as what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vbackup.api import ConfigError, Hypervisor, Point, RestoreRequest
from vbackup.engine.restore import Restore
from vbackup.jobs.points import find_point
from vbackup.jobs.site import Site


@dataclass(frozen=True)
class RestoreOptions:
    """What the user asked for; see `RestoreRequest`."""

    to: str | None = None
    name: str | None = None
    disks: Mapping[str, Path] = field(default_factory=dict)
    format: str | None = None
    overwrite: bool = False
    start: bool = False


@dataclass(frozen=True)
class RestoreReport:
    """What came of it."""

    point: Point
    result: str
    bytes_written: int
    notes: tuple[str, ...]


def restore(site: Site, text: str, options: RestoreOptions, progress: Callable[[str, int, int], None]) -> RestoreReport:
    """Restore the point that ``text`` names; ``progress(disk, done, size)`` counts bytes of disk.

    Raises: `ConfigError`, and all that `Hypervisor.restore` raises before anything is written.
    """
    if options.disks and (options.name or options.start):
        raise ConfigError("--disk restores disks only: it does not go with --as or --start")
    found = find_point(site, text)
    keys = [disk.key for disk in found.point.disks]
    for key in options.disks:
        if key not in keys:
            raise ConfigError(f"{text} has no disk {key!r}", hint=f"its disks: {', '.join(keys) or 'none'}")
    request = RestoreRequest(
        name=options.name,
        disks={key: path.absolute() for key, path in options.disks.items()},
        format=options.format,
        overwrite=options.overwrite,
        start=options.start,
    )
    hypervisor = _destination(site, found.point, options)
    done = Restore(site.target(found.target), hypervisor, site.stop, progress).run(found.point, request)
    return RestoreReport(found.point, done.result, done.written, done.notes)


def _destination(site: Site, point: Point, options: RestoreOptions) -> Hypervisor:
    if options.to is not None:
        return site.hypervisor(options.to)
    if options.disks:
        return site.file_writer()
    configured = site.config.hypervisors
    same_type = [alias for alias, entry in configured.items() if entry.type == point.hypervisor_type]
    if point.hypervisor in same_type:
        return site.hypervisor(point.hypervisor)
    if len(same_type) == 1:
        return site.hypervisor(same_type[0])
    raise ConfigError(
        f"{point.machine} was on {point.hypervisor} ({point.hypervisor_type}), which is not configured here",
        hint=f"say where to with --to: {', '.join(sorted(configured)) or 'no hypervisor is configured'}",
    )
