"""restic: a file; deduplicated, zstd by default, encrypted."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.peers.meter import Spent, spend
from tests.bench.peers.night import Night
from tests.bench.peers.tool import Tool


class Restic(Tool):
    """With its defaults."""

    name = "restic"
    deduplicates = True

    def __init__(self, night: Night) -> None:
        super().__init__(night)
        self._env = os.environ | {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": f"{night.place}/restic-cache"}
        self._run("init")

    def full(self) -> Spent:
        return self._run("backup", self.night.source)

    unchanged = changed = second = full

    def restore_raw(self, to: Path) -> Spent:
        return self._run("restore", "latest", "--target", to)

    def verify(self) -> Spent:
        return self._run("check", "--read-data")

    def _run(self, *argv: str | Path) -> Spent:
        return spend(["restic", "-q", "-r", self.store, *argv], env=self._env)
