"""qemu-img: a file to a compressed qcow2, and back; it knows no increments, and neither encrypts nor deduplicates."""

from __future__ import annotations

from pathlib import Path

from tests.bench.peers.meter import Spent, spend
from tests.bench.peers.tool import Tool

FAST = ("-m", "16", "-W")
"""The most requests at once, in any order: much faster than its default."""


class Convert(Tool):
    """``qemu-img convert`` with zstd; each time in full."""

    name = "qemu-img convert"

    def full(self) -> Spent:
        self.store.mkdir(exist_ok=True)
        image = self.store / f"{self.night.phase}.qcow2"
        compressed = ["-c", "-O", "qcow2", "-o", "compression_type=zstd"]
        return spend(["qemu-img", "convert", *FAST, "-f", "raw", *compressed, self.night.source, image])

    changed = second = full

    def restore_raw(self, to: Path) -> Spent:
        return self._back(to / "disk.raw", "raw")

    def restore_qcow2(self, to: Path) -> Spent:
        return self._back(to / "disk.qcow2", "qcow2")

    def _back(self, to: Path, format_: str) -> Spent:
        return spend(["qemu-img", "convert", *FAST, "-f", "qcow2", "-O", format_, self.store / "changed.qcow2", to])
