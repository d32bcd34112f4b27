"""benji: a file; deduplicated in blocks of 4 MiB, with zstd 3 and encrypted.

Its release asks for a ruamel.yaml that no longer builds, so it gets an environment of its own with a newer one.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

from tests.bench.peers.meter import Spent, spend
from tests.bench.peers.night import Night
from tests.bench.peers.tool import Tool
from vbackup.testing.lab.build import CACHE

PLACE = CACHE / "benji"
RELEASE = "benji==0.17.0"
NEEDS = (
    "PrettyTable<1", "sqlalchemy<2", "setproctitle<2", "python-dateutil<3", "alembic<2", "ruamel.yaml<0.18",
    "psycopg2-binary<3", "argcomplete<2", "sparsebitfield<1", "cerberus<2", "pycryptodome<5", "pyparsing<3",
    "semantic-version<3", "dateparser<2", "structlog", "colorama<1", "diskcache", "attrs<22", "zstandard",
    "setuptools<81",
)  # fmt: skip
CONFIG = """
configurationVersion: '1'
databaseEngine: sqlite:///{store}/benji.sqlite
defaultStorage: file
storages:
  - {{name: file, storageId: 1, module: file, configuration: {{path: {store}/blocks, activeTransforms: [zstd, aes]}}}}
transforms:
  - {{name: zstd, module: zstd, configuration: {{level: 3}}}}
  - {{name: aes, module: aes_256_gcm, configuration: {{masterKey: {key}}}}}
ios:
  - {{name: file, module: file, configuration: {{}}}}
"""


def install() -> Path:
    """Return the program, installed when it is missing."""
    if not (PLACE / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", PLACE], check=True)
        pip = [PLACE / "bin/pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *NEEDS], check=True)
        subprocess.run([*pip, "--no-deps", RELEASE], check=True)
        (PLACE / "ready").touch()
    return PLACE / "bin/benji"


class Benji(Tool):
    """With its defaults, but for the transformations, of which it has none by default."""

    name = "benji"
    deduplicates = True

    def __init__(self, night: Night) -> None:
        super().__init__(night)
        self._config = night.place / "benji.yaml"
        self._config.write_text(CONFIG.format(store=self.store, key=base64.b64encode(bytes(range(32))).decode()))
        (self.store / "blocks").mkdir(parents=True)
        self._version = ""
        self._run("database-init")

    def full(self) -> Spent:
        self._version = self.night.phase
        return self._run("backup", "-u", self._version, f"file:{self.night.source}", "disk")

    unchanged = changed = second = full

    def restore_raw(self, to: Path) -> Spent:
        return self._run("restore", "--sparse", self._version, f"file:{to}/disk.raw")

    def verify(self) -> Spent:
        return self._run("deep-scrub", self._version)

    def _run(self, *argv: str) -> Spent:
        return spend([install(), "-c", self._config, "--log-level", "ERROR", *argv])
