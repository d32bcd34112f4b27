"""Checking targets, and repairing one from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vbackup.api import (
    Buffer,
    CheckOrder,
    CheckReport,
    ConfigError,
    Corrupt,
    Interrupted,
    Point,
    Range,
    Target,
    VBackupError,
)
from vbackup.jobs.site import Site

T = TypeVar("T")


@dataclass(frozen=True)
class CheckResult:
    """What came of one target."""

    target: str
    report: CheckReport = field(default_factory=CheckReport)
    error: VBackupError | None = None
    """Why it could not be checked: that says nothing of what it holds."""
    unasked: tuple[str, ...] = ()
    """Other targets that could not be asked for what is lost, and why."""

    @property
    def failed(self) -> bool:
        """Whether it could not be checked, or is not whole."""
        return self.error is not None or bool(self.report.wrong or self.report.damage)

    @property
    def warnings(self) -> bool:
        """Whether there is anything that the user must know all the same."""
        return bool(self.report.repaired or self.unasked)


def check(
    site: Site, aliases: Sequence[str], order: CheckOrder, progress: Callable[[int], None]
) -> tuple[CheckResult, ...]:
    """Check targets, all that are configured without any; with a repair the others are asked for what one has lost.

    One target's failure is in its result and stops no other. Raises: `ConfigError` for an unknown name; `Interrupted`.
    """
    if not site.config.targets:
        raise ConfigError("the configuration has no targets", hint="add one under `targets:`")
    targets = {alias: site.target(alias) for alias in dict.fromkeys(aliases or site.config.targets)}
    with site.past_caches():
        return tuple(_check(site, alias, target, order, progress) for alias, target in targets.items())


def _check(site: Site, alias: str, target: Target, order: CheckOrder, progress: Callable[[int], None]) -> CheckResult:
    copies = Copies(site, alias)
    try:
        report = target.check(replace(order, elsewhere=copies if order.repair else None), progress)
    except Interrupted:
        raise
    except VBackupError as error:
        return CheckResult(alias, error=error)
    return CheckResult(alias, report, unasked=tuple(copies.unasked.values()))


class Copies:
    """What the other targets have of the same restore points; see `vbackup.api.Elsewhere`."""

    def __init__(self, site: Site, besides: str) -> None:
        self._site = site
        self._others = [alias for alias in site.config.targets if alias != besides]
        self._points: dict[str, Mapping[str, Point]] = {}
        self.unasked: dict[str, str] = {}
        """Targets that could not be asked for everything, and why."""

    def read(self, point: str, disk: str, wanted: Range) -> Buffer | None:
        """See `Elsewhere.read`."""

        def ask(target: Target, found: Point) -> Buffer | None:
            sizes = {each.key: each.size for each in found.disks}
            if wanted.offset + wanted.length > sizes.get(disk, 0):
                return None
            (block,) = target.read(found, disk, [wanted])
            return block.data

        return next((data for data in self._ask(point, ask) if data is not None), None)

    def file(self, point: str, name: str) -> bytes | None:
        """See `Elsewhere.file`."""

        def ask(target: Target, found: Point) -> bytes | None:
            return target.file(found, name) if name in found.files else None

        return next((data for data in self._ask(point, ask) if data is not None), None)

    def _ask(self, point: str, ask: Callable[[Target, Point], T]) -> Iterator[T]:
        for alias in self._others:
            try:
                found = self._points_of(alias).get(point)
                if found is not None:
                    yield ask(self._site.target(alias), found)
            except Interrupted:
                raise
            except Corrupt:
                continue  # that copy has lost it, too
            except VBackupError as error:
                self.unasked[alias] = f"target {alias} could not be asked for all that is lost: {error.message}"

    def _points_of(self, alias: str) -> Mapping[str, Point]:
        if alias not in self._points:
            self._points[alias] = {}  # a target that is away is asked once
            self._points[alias] = {point.id: point for point in self._site.target(alias).points()}
        return self._points[alias]
