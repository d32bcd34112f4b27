"""Which restore points of a machine the rules of its job keep, and why the others go.

A rule such as ``daily: 7`` keeps the newest point of each of the last 7 days that have points: a machine that was off
for a month loses nothing by it. Each rule looks at all points, whatever other rules keep. So what is kept once is kept
for the same reasons when the others are gone, and a larger number never keeps less.

Clocks may be wrong. Points from the future are kept and count in no rule, else they would push out good ones; and the
point that was made last is kept even when its time says that others are newer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from vbackup.api import Point
from vbackup.config import Keep


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a point, and why: each rule that keeps it, or the one reason why it goes."""

    point: Point
    kept: bool
    reasons: tuple[str, ...]


def decide(
    points: Iterable[Point], keep: Keep | None, zone: tzinfo, protected: Mapping[str, str], now: datetime
) -> list[Decision]:
    """Apply the rules of a job to its points of one machine in one target; the result is oldest first.

    Periods are those of ``zone``. ``protected`` has ids and why they are; see `Target.protected`. Of points of one
    moment, the one with the higher sequence (then id) is the newer. The machine's newest point never goes.
    """
    if keep is None or not keep.model_dump(exclude_none=True):
        return keep_all(points, "the job has no keep rules", protected)
    ordered = _oldest_first(points)
    past = [point for point in reversed(ordered) if point.time <= now]
    why_kept = _Reasons()
    why_gone = _Reasons()
    for rank, point in enumerate(past[: keep.last or 0], 1):
        why_kept.add(point, f"last {rank} of {keep.last}")
    for kind in _KINDS:
        _apply(kind, getattr(keep, kind.rule) or 0, past, zone, why_kept, why_gone)
    for point in ordered:
        if point.time > now:
            why_kept.add(point, "from the future")
        if point.id in protected:
            why_kept.add(point, _protected(protected[point.id]))
        if point.locked_until is not None and point.locked_until > now:
            why_kept.add(point, f"locked by the store until {point.locked_until.astimezone(zone):%Y-%m-%d %H:%M}")
    if past:
        why_kept.add(past[0], "the machine's newest")
        last = max(past, key=lambda point: point.sequence)
        if last is not past[0]:
            why_kept.add(last, "made last, whatever its time")
    return [
        Decision(point, True, tuple(why_kept[point.id]))
        if point.id in why_kept
        else Decision(point, False, tuple(why_gone.get(point.id, ["no rule keeps it"])[:1]))
        for point in ordered
    ]


def keep_all(points: Iterable[Point], reason: str, protected: Mapping[str, str]) -> list[Decision]:
    """Keep points that no rules apply to, oldest first."""
    return [
        Decision(point, True, (reason, *([_protected(protected[point.id])] if point.id in protected else [])))
        for point in _oldest_first(points)
    ]


class _Reasons(dict[str, list[str]]):
    """Reasons by the ids of points."""

    def add(self, point: Point, reason: str) -> None:
        self.setdefault(point.id, []).append(reason)


class _Kind(NamedTuple):
    """A kind of period; ``label`` names the one that a local time is in."""

    rule: str
    noun: str
    label: Callable[[datetime], str]


_KINDS = (
    _Kind("hourly", "hour", lambda time: time.isoformat(timespec="hours")),  # the offset tells an hour that comes twice
    _Kind("daily", "day", lambda time: f"{time:%Y-%m-%d}"),
    _Kind("weekly", "week", lambda time: f"{time:%G-W%V}"),
    _Kind("monthly", "month", lambda time: f"{time:%Y-%m}"),
    _Kind("yearly", "year", lambda time: f"{time:%Y}"),
)
"""From the finest: of several reasons why a point goes, the first is told."""


def _apply(
    kind: _Kind, count: int, newest_first: Sequence[Point], zone: tzinfo, why_kept: _Reasons, why_gone: _Reasons
) -> None:
    seen: set[str] = set()
    for point in newest_first:
        label = kind.label(point.time.astimezone(zone))
        if label in seen:
            why_gone.add(point, f"a later point of {label} stands for that {kind.noun}")
        elif len(seen) < count:
            seen.add(label)
            why_kept.add(point, f"{kind.rule} {label}")


def _oldest_first(points: Iterable[Point]) -> list[Point]:
    # In UTC: two times of one zone are compared by their faces, which are wrong when the clock is set back.
    return sorted(points, key=lambda point: (point.time.astimezone(UTC), point.sequence, point.id))


def _protected(reason: str) -> str:
    return f"protected: {reason}" if reason else "protected"
