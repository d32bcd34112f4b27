"""vbackup for a benchmark: a configuration of its own, driven through the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.measure import Cost, cost

VBACKUP = Path(sys.executable).with_name("vbackup")


class Site:
    """A configuration in a directory."""

    def __init__(self, place: Path, machines: list[str]) -> None:
        self.place = place
        self.store = place / "store"
        place.mkdir(parents=True)
        selectors = ", ".join(f'"lab:{name}"' for name in machines)
        (place / "vbackup.yaml").write_text(
            f"""
hypervisors: {{lab: {{type: libvirt, uri: "qemu:///system"}}}}
transports: {{disk: {{type: local, path: {self.store}}}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {place}/key}}}}}}
jobs: {{nightly: {{machines: [{selectors}], target: main, quiesce: no}}}}
"""
        )
        self.env = os.environ | {"VBACKUP_STATE_DIR": f"{place}/state", "VBACKUP_CACHE_DIR": f"{place}/cache"}
        self("init")

    def __call__(self, *argv: str | Path) -> Cost:
        """Run a command and measure it."""
        return cost([VBACKUP, "-c", self.place / "vbackup.yaml", *argv], env=self.env)

    def point(self, machine: str) -> dict[str, Any]:
        """Return the newest point of a machine as `list` shows it."""
        command = [VBACKUP, "-c", self.place / "vbackup.yaml", "--json", "list", machine]
        points = json.loads(subprocess.check_output(command, env=self.env))
        return dict(points[-1])
