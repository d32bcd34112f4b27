"""What a tool took, of all rounds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.goals import median
from tests.bench.peers.meter import Spent

PHASES = {
    "full": "first full of a running guest",
    "unchanged": "unchanged run",
    "changed": "changed run",
    "restore_raw": "restore to raw",
    "restore_qcow2": "restore to qcow2",
    "verify": "verify",
    "second": "second guest into the same store",
}
"""In their order."""
GROWING = ("full", "unchanged", "changed", "second")
"""Phases that store something."""


@dataclass
class Result:
    """Of one tool, by phase: what each round took, and by how many bytes its store grew."""

    name: str
    deduplicates: bool
    spent: dict[str, list[Spent]] = field(default_factory=dict)
    grown: dict[str, list[int]] = field(default_factory=dict)

    def add(self, phase: str, spent: Spent, grown: int) -> None:
        """Remember a round."""
        self.spent.setdefault(phase, []).append(spent)
        self.grown.setdefault(phase, []).append(grown)

    def wall(self, phase: str) -> float:
        """Seconds."""
        return median([spent.wall for spent in self.spent[phase]])

    def cpu(self, phase: str) -> float:
        """Seconds, wherever they were spent."""
        return median([spent.all_cpu for spent in self.spent[phase]])

    def memory(self, phase: str) -> int:
        """The peak of all rounds."""
        return max(spent.memory for spent in self.spent[phase])

    def read(self, phase: str) -> float:
        """Bytes."""
        return median([spent.read for spent in self.spent[phase]])

    def stored(self, phase: str) -> float:
        """Bytes."""
        return median(self.grown[phase])

    def raw(self) -> dict[str, list[dict[str, Any]]]:
        """For JSON."""
        return {
            phase: [asdict(spent) | {"stored": grown} for spent, grown in zip(rounds, self.grown[phase], strict=True)]
            for phase, rounds in self.spent.items()
        }
