"""What a tool of the comparison does in each phase."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.peers.meter import Spent

if TYPE_CHECKING:
    from tests.bench.peers.night import Night
    from vbackup.testing.lab.guest import Guest


class Tool:
    """One for each night. A phase is a method of its name; None: it cannot do that, or it would say nothing."""

    name: str
    deduplicates = False
    guest: Guest | None = None
    """The twin of the first guest that it reads from; without one it reads a file, `Night.source`."""

    def __init__(self, night: Night) -> None:
        self.night = night
        self.store = night.place / self.name.replace(" ", "-")
        """Where everything goes that must be kept."""

    def full(self) -> Spent | None:
        """Back up the first guest for the first time."""

    def unchanged(self) -> Spent | None:
        """Back it up again."""

    def changed(self) -> Spent | None:
        """Back it up when it has changed."""

    def restore_raw(self, _to: Path) -> Spent | None:
        """Put the newest state into an empty directory, as a raw file."""

    def restore_qcow2(self, _to: Path) -> Spent | None:
        """The same as qcow2."""

    def verify(self) -> Spent | None:
        """Check every byte that the newest state needs, or more if there is no choice."""

    def second(self) -> Spent | None:
        """Back up the second guest."""
