"""borg: a file; deduplicated, encrypted; with zstd 3, as ours and restic's, for its default LZ4 stores more."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bench.peers.meter import Spent, spend
from tests.bench.peers.night import Night
from tests.bench.peers.tool import Tool


class Borg(Tool):
    """With its default chunker."""

    name = "borg"
    deduplicates = True

    def __init__(self, night: Night) -> None:
        super().__init__(night)
        self._env = os.environ | {"BORG_PASSPHRASE": "x", "BORG_BASE_DIR": f"{night.place}/borg-base"}
        self._archive = ""
        spend(["borg", "init", "-e", "repokey-blake2", self.store], env=self._env)

    def full(self) -> Spent:
        self._archive = f"{self.store}::{self.night.phase}"
        return self._run("create", "-C", "zstd,3", self._archive, self.night.source)

    unchanged = changed = second = full

    def restore_raw(self, to: Path) -> Spent:
        return self._run("extract", "--sparse", self._archive, cwd=to)

    def verify(self) -> Spent:
        return self._run("check", "--verify-data", self.store)

    def _run(self, *argv: str | Path, cwd: Path | None = None) -> Spent:
        return spend(["borg", *argv], env=self._env, cwd=cwd)
