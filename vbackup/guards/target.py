"""The guard around each target."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from pydantic import BaseModel

from vbackup.api import (
    Block,
    CheckOrder,
    CheckReport,
    Damage,
    DiskProgress,
    Exchanger,
    Extent,
    KeyHolder,
    KeyRing,
    MachineDescription,
    NotFound,
    Point,
    PruneOrder,
    PruneReport,
    Range,
    TakenOver,
    Target,
    Writer,
)
from vbackup.guards import watch
from vbackup.guards.answers import checked, listed, sound, valid, wrong
from vbackup.guards.blame import Blame, Calling, Raised
from vbackup.guards.keyring import GuardedKeyRing
from vbackup.guards.streams import as_asked, covering
from vbackup.guards.writer import GuardedWriter

T = TypeVar("T")
_REPORTED = "reported any progress"
_ID = re.compile(r"[0-9a-f]{32}")


class GuardedTarget:
    """Holds a target to its promises. Whether it really keeps what it took, a run asks it afterwards."""

    def __init__(self, inner: Target, blame: Blame) -> None:
        self.inner = inner
        self.name: str = inner.name
        self.options: type[BaseModel] = inner.options
        self.encodes: bool = inner.encodes
        self.needs_files: bool = inner.needs_files
        self._blame = blame

    @property
    def id(self) -> str:
        """See `Target.id`."""
        with self._blame.calling("id"):
            found: object = self.inner.id
        if type(found) is not str or not _ID.fullmatch(found):
            raise self._blame.error(f"its id is {found!r:.80}, not 32 hex digits")
        return found

    def init(self) -> None:
        """See `Target.init`."""
        with self._blame.calling("init"):
            self.inner.init()

    @contextmanager
    def writer(self) -> Iterator[Writer]:
        """See `Target.writer`. No error of ours is swallowed."""
        raised = Raised()
        with self._blame.calling("writer"):
            manager = self.inner.writer()
            writer = manager.__enter__()
        try:
            yield GuardedWriter(writer, self._blame)
        except BaseException as error:
            raised.error = error
            with self._blame.calling("the end of the writer", raised=raised):
                manager.__exit__(type(error), error, error.__traceback__)
            raise
        with self._blame.calling("the end of the writer"):
            manager.__exit__(None, None, None)

    def points(self) -> list[Point]:
        """See `Target.points`."""
        with self._blame.calling("points"):
            points = listed(self.inner.points(), Point, "points", self._blame)
            return [valid(point, Point, "points", self._blame) for point in points]

    def damaged_points(self) -> list[Damage]:
        """See `Target.damaged_points`."""
        with self._blame.calling("damaged_points"):
            return self._damage(self.inner.damaged_points(), "damaged_points")

    def description(self, point: Point) -> MachineDescription:
        """See `Target.description`."""
        with self._blame.calling("description"):
            described = checked(self.inner.description(point), MachineDescription, "description", self._blame)
            return valid(described, MachineDescription, "description", self._blame)

    def extents(self, point: Point, disk: str, since: Point | None = None) -> Iterator[Extent]:
        """See `Target.extents`."""
        size = next((each.size for each in point.disks if each.key == disk), None)
        if size is None:
            raise NotFound(f"restore point {point.machine}@{point.id[:8]} has no disk {disk}")
        return covering(lambda: self.inner.extents(point, disk, since), size, f"disk {disk}", self._blame)

    def read(self, point: Point, disk: str, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `Target.read`."""
        return as_asked(lambda lent: self.inner.read(point, disk, lent), ranges, f"disk {disk}", self._blame)

    def file(self, point: Point, name: str) -> bytes:
        """See `Target.file`."""
        with self._blame.calling("file", name):
            return checked(self.inner.file(point, name), bytes, "file", self._blame)

    def verify(self, points: Sequence[Point], progress: Callable[[int], None]) -> list[Damage]:
        """See `Target.verify`."""
        raised = Raised()
        with self._blame.working("verify", _REPORTED, raised=raised) as call:
            heard = raised.by(self._heard(progress, int, call, "verify"))
            return self._damage(self.inner.verify(points, heard), "verify")

    def check(self, order: CheckOrder, progress: Callable[[int], None]) -> CheckReport:
        """See `Target.check`."""
        raised = Raised()
        with self._blame.working("check", _REPORTED, raised=raised) as call:
            heard = raised.by(self._heard(progress, int, call, "check"))
            return sound(self.inner.check(order, heard), CheckReport, "check", self._blame)

    def delete(self, points: Sequence[Point]) -> None:
        """See `Target.delete`."""
        with self._blame.calling("delete"):
            self.inner.delete(points)

    def forget(self, ids: Sequence[str]) -> None:
        """See `Target.forget`."""
        with self._blame.calling("forget"):
            self.inner.forget(ids)

    def protected(self) -> Mapping[str, str]:
        """See `Target.protected`."""
        with self._blame.calling("protected"):
            found = dict(self.inner.protected())
        if not all(isinstance(text, str) for pair in found.items() for text in pair):
            raise wrong(found, "texts by the ids of points", "protected", self._blame)
        return found

    def protect(self, point: Point, reason: str) -> None:
        """See `Target.protect`."""
        with self._blame.calling("protect"):
            self.inner.protect(point, reason)

    def unprotect(self, point: Point) -> None:
        """See `Target.unprotect`."""
        with self._blame.calling("unprotect"):
            self.inner.unprotect(point)

    def prune(self, order: PruneOrder) -> PruneReport:
        """See `Target.prune`."""
        with self._blame.working("prune", "returned", patience=watch.SILENT_PATIENCE):
            return sound(self.inner.prune(order), PruneReport, "prune", self._blame)

    def close(self) -> None:
        """See `Target.close`."""
        with self._blame.calling("close"):
            self.inner.close()

    def _damage(self, found: Iterable[Damage], method: str) -> list[Damage]:
        return [sound(each, Damage, method, self._blame) for each in listed(found, Damage, method, self._blame)]

    def _heard(self, report: Callable[[T], None], of: type[T], call: Calling, method: str) -> Callable[[T], None]:
        """Return what a plugin reports its progress to."""

        def hear(value: T) -> None:
            call.since = monotonic()
            report(sound(value, of, f"progress of {method}", self._blame))

        return hear


class _Exchanging(GuardedTarget):
    """One that is an `Exchanger`, too. Those of one type know each other: guards are none of their business."""

    inner: Exchanger  # type: ignore[assignment]  # and a target

    def init_with_keys_of(self, other: Target) -> None:
        """See `Exchanger.init_with_keys_of`."""
        with self._blame.calling("init_with_keys_of"):
            self.inner.init_with_keys_of(unguarded(other))

    def exchanges_with(self, source: Target) -> bool:
        """See `Exchanger.exchanges_with`."""
        with self._blame.calling("exchanges_with"):
            return checked(self.inner.exchanges_with(unguarded(source)), bool, "exchanges_with", self._blame)

    def take_over(
        self, writer: Writer, source: Target, point: Point, base: Point | None, report: Callable[[DiskProgress], None]
    ) -> TakenOver:
        """See `Exchanger.take_over`."""
        raised = Raised()
        own = writer.inner if isinstance(writer, GuardedWriter) else writer
        with self._blame.working("take_over", _REPORTED, raised=raised) as call:
            heard = raised.by(self._heard(report, DiskProgress, call, "take_over"))
            found = self.inner.take_over(own, unguarded(source), point, base, heard)
            taken = sound(found, TakenOver, "take_over", self._blame)
            return taken._replace(point=valid(taken.point, Point, "take_over", self._blame))


class _KeyHolding(GuardedTarget):
    """One that is a `KeyHolder`, too."""

    inner: KeyHolder  # type: ignore[assignment]  # and a target

    def key_ring(self) -> KeyRing:
        """See `KeyHolder.key_ring`."""
        with self._blame.calling("key_ring"):
            return GuardedKeyRing(self.inner.key_ring(), self._blame)


class _Both(_Exchanging, _KeyHolding):  # type: ignore[misc]  # inner is both
    """An exchanger that holds keys."""


def guarded_target(inner: Target, blame: Blame) -> GuardedTarget:
    """Return the guard that has just those optional parts that the target has."""
    with blame.calling("its class"):
        exchanges, holds = isinstance(inner, Exchanger), isinstance(inner, KeyHolder)
    if exchanges and holds:
        return _Both(inner, blame)
    return (_Exchanging if exchanges else _KeyHolding if holds else GuardedTarget)(inner, blame)


def unguarded(target: Target) -> Target:
    """Return the target itself."""
    return target.inner if isinstance(target, GuardedTarget) else target
