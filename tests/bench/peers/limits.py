"""What cannot be beaten: reading alone, the bare loop, and libvirt's part of an incremental backup.

They read from a twin of the guest, by a backup job, as ours does; beginning and ending the job is not counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench.job import first_checkpoint, serving
from tests.bench.peers.meter import Spent, spend
from tests.bench.peers.night import Night
from tests.bench.peers.tool import Tool

GUEST = "limits"
LOOP = (sys.executable, "-m", "tests.bench.loop")


class _Reader(Tool):
    def __init__(self, night: Night) -> None:
        super().__init__(night)
        self.guest = night.guest(GUEST)

    def _served(self, before: tuple[str, ...], *after: str | Path) -> Spent:
        with serving(self.guest.domain, self.night.place) as socket:
            return spend([*before, socket, "vda", *after], qemu=self.guest.pid)


class Loop(_Reader):
    """The bare loop; see `tests.bench.loop`."""

    name = "bare loop"

    def full(self) -> Spent:
        return self._served((*LOOP, "full"), self.store)

    def changed(self) -> Spent:
        return self._served((*LOOP, "changed"), self.night.disks.dirty, self.store)

    def restore_raw(self, to: Path) -> Spent:
        return spend([*LOOP, "restore", self.store, to / "disk.raw"])

    def verify(self) -> Spent:
        return spend([*LOOP, "verify", self.store])


class NbdCopy(_Reader):
    """nbdcopy to nowhere: reading."""

    name = "nbdcopy to null"

    def full(self) -> Spent:
        with serving(self.guest.domain, self.night.place) as socket:
            return spend(["nbdcopy", f"nbd+unix:///vda?socket={socket}", "null:"], qemu=self.guest.pid)


class Job(_Reader):
    """A backup job of libvirt's in which nothing is done, with checkpoints."""

    name = "libvirt's job alone"

    def unchanged(self) -> Spent:
        first_checkpoint(self.guest.domain, "since")
        job = [sys.executable, "-m", "tests.bench.job", GUEST, "since", "next", self.night.place]
        return spend(job, qemu=self.guest.pid)
