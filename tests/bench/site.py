"""vbackup for a benchmark: a configuration of its own, driven through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.measure import Cost, cost

VBACKUP = Path(sys.executable).with_name("vbackup")


class Site:
    """A configuration in a directory, of one job; ``job`` adds to that, and ``transport`` is instead of a directory."""

    def __init__(
        self,
        place: Path,
        machines: Sequence[str],
        *,
        transport: Mapping[str, Any] | None = None,
        job: Mapping[str, Any] | None = None,
    ) -> None:
        self.place = place
        self.store = place / "store"
        place.mkdir(parents=True)
        selected = [f"lab:{name}" for name in machines]
        config = {
            "hypervisors": {"lab": {"type": "libvirt", "uri": "qemu:///system"}},
            "transports": {"store": transport or {"type": "local", "path": str(self.store)}},
            "targets": {"main": {"type": "repository", "transport": "store", "key": {"file": f"{place}/key"}}},
            "jobs": {"nightly": {"machines": selected, "target": "main", "quiesce": "no", **(job or {})}},
        }
        (place / "vbackup.yaml").write_text(json.dumps(config))
        self.env = os.environ | {"VBACKUP_STATE_DIR": f"{place}/state", "VBACKUP_CACHE_DIR": f"{place}/cache"}
        self("init")

    def __call__(self, *argv: str | Path) -> Cost:
        """Run a command and measure it."""
        return cost(self.command(*argv), env=self.env)

    def command(self, *argv: str | Path) -> list[str | Path]:
        """What a call runs."""
        return [VBACKUP, "-c", self.place / "vbackup.yaml", *argv]

    def point(self, machine: str) -> dict[str, Any]:
        """Return the newest point of a machine as `list` shows it."""
        points = json.loads(subprocess.check_output(self.command("--json", "list", machine), env=self.env))
        return dict(points[-1])
