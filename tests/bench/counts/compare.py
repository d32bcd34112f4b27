"""Comparing counts with the baseline: of all that is counted, less is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.measure import table


class Tolerance(NamedTuple):
    """By how much two counts of the same work may differ: a part of the first, and a number beside that."""

    part: float
    number: float = 0


TOLERANCES: Mapping[str, Tolerance] = {
    "calls": Tolerance(0.10, 5),  # threads wait more or less often; versions of Python inline more or less
    "calls a chunk": Tolerance(0.10),
    "read": Tolerance(0, 512 << 10),  # samples are read again, and may fall on what changed
    "sent": Tolerance(0.02, 1 << 10),  # versions of zstd compress more or less
    "fetched": Tolerance(0.02, 16 << 10),
    "get": Tolerance(0.10, 2),  # which chunks are neighbours in a pack is decided by threads; some reads are samples
    "memory": Tolerance(0.15),
}
"""By what is counted; all else is exact."""
EXACT = Tolerance(0)


@dataclass(frozen=True)
class Difference:
    """What is not as it was; None for a count that was not there, or is not."""

    what: str
    before: float | None
    now: float | None

    @property
    def is_worse(self) -> bool:
        """Whether it is a regression."""
        return self.before is not None and self.now is not None and self.now > self.before

    @property
    def row(self) -> list[str]:
        """What, baseline, now, change."""
        change = f"{self.now / self.before - 1:+.0%}" if self.before and self.now is not None else ""
        return [self.what, _number(self.before), _number(self.now), change]


def compare(baseline: Mapping[str, float], figures: Mapping[str, float]) -> list[Difference]:
    """Return what differs by more than its tolerance."""
    names = dict.fromkeys((*baseline, *figures))
    pairs = [Difference(name, baseline.get(name), figures.get(name)) for name in names]
    return [pair for pair in pairs if not _is_same(pair)]


def _is_same(pair: Difference) -> bool:
    if pair.before is None or pair.now is None:
        return False
    allowed = TOLERANCES.get(pair.what.rpartition(": ")[2], EXACT)
    return abs(pair.now - pair.before) <= pair.before * allowed.part + allowed.number


def report(differences: list[Difference]) -> str:
    """Return tables of what got worse, and of what else changed; empty when nothing did."""
    worse = [each.row for each in differences if each.is_worse]
    other = [each.row for each in differences if not each.is_worse]
    head = ["what", "baseline", "now", "change"]
    titles = {"Worse than the baseline": worse, "Better than the baseline, or new": other}
    return "\n".join(table(title, head, rows) for title, rows in titles.items() if rows)


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:,g}" if number < 1000 else f"{number:,.0f}"
