"""virtnbdbackup: of a running guest as well, but neither deduplicated nor encrypted, and without a check of its own.

It refuses to run beside checkpoints of others, so it has twins of the guest.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.peers.meter import Spent, spend
from tests.bench.peers.night import Night
from tests.bench.peers.tool import Tool


class Plain(Tool):
    """Without compression."""

    name = "virtnbdbackup"
    options: tuple[str, ...] = ()

    def __init__(self, night: Night) -> None:
        super().__init__(night)
        self.guest = night.guest(self.name.replace(" ", ""))

    def full(self) -> Spent:
        return self._backup("full")

    def unchanged(self) -> Spent:
        return self._backup("inc")

    changed = unchanged

    def restore_qcow2(self, to: Path) -> Spent:
        """It restores to the format that the guest's disk had, and no other."""
        return spend(["virtnbdrestore", "-i", self.store, "-o", to, "-L", self.night.place / "virtnbdrestore.log"])

    def second(self) -> Spent:
        with self.night.second_guest(self.guest.name) as guest:
            return self._run(guest.name, guest.pid, "full", self.store / "second")

    def _backup(self, level: str) -> Spent:
        return self._run(self.guest.name, self.guest.pid, level, self.store)

    def _run(self, guest: str, qemu: int, level: str, to: Path) -> Spent:
        scratch = ["-S", self.night.place, "-f", self.night.place / "virtnbd.socket"]
        return spend(["virtnbdbackup", "-d", guest, "-l", level, "-o", to, *scratch, *self.options], qemu=qemu)


class Compressed(Plain):
    """With LZ4."""

    name = "virtnbdbackup -z"
    options = ("-z",)
