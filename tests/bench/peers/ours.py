"""vbackup, through its command line."""

from __future__ import annotations

from pathlib import Path

from tests.bench.peers.meter import Spent, spend
from tests.bench.peers.night import Night
from tests.bench.peers.tool import Tool
from tests.bench.site import VBACKUP, Site

GUEST = "ours"


class VBackup(Tool):
    """Runs through libvirt and NBD against a running guest, with its defaults: zstd, encrypted."""

    name = "vbackup"
    deduplicates = True

    def __init__(self, night: Night) -> None:
        super().__init__(night)
        self.guest = night.guest(GUEST)
        self._site = Site(self.store, [GUEST, night.second_name(GUEST)])
        self.store = self._site.store

    def full(self) -> Spent:
        return self._run("run", GUEST, qemu=self.guest.pid)

    unchanged = changed = full

    def restore_raw(self, to: Path) -> Spent:
        return self._restore(to, "raw")

    def restore_qcow2(self, to: Path) -> Spent:
        return self._restore(to, "qcow2")

    def verify(self) -> Spent:
        return self._run("verify", f"{GUEST}@latest")

    def second(self) -> Spent:
        with self.night.second_guest(GUEST) as guest:
            return self._run("run", guest.name, qemu=guest.pid)

    def _restore(self, to: Path, format_: str) -> Spent:
        return self._run("restore", f"{GUEST}@latest", "--disk", f"vda={to}/vda.{format_}", "--format", format_)

    def _run(self, *argv: str, qemu: int | None = None) -> Spent:
        return spend([VBACKUP, "-c", self._site.place / "vbackup.yaml", *argv], env=self._site.env, qemu=qemu)
