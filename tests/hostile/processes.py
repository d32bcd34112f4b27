"""Commands in processes of their own, for what a plugin does to a process."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import Any

from tests.hostile.conftest import Place

_MAIN = "import sys; from vbackup.cli.main import main; main()"


def started(place: Place, *args: str) -> subprocess.Popen[str]:
    """Start a command."""
    command = [sys.executable, "-c", _MAIN, *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **_ready(place))


def ended(place: Place, *args: str) -> tuple[int, str]:
    """Run a command; return its exit code and what it complained of."""
    with started(place, *args) as process:
        _, err = process.communicate(timeout=100)
        return process.returncode, err


def redirected(place: Place, *args: str, to: str) -> subprocess.CompletedProcess[str]:
    """Run a command by a shell, with redirections behind it."""
    command = f"{shlex.join([sys.executable, '-c', _MAIN, *args])} {to}"
    return subprocess.run(command, shell=True, check=False, capture_output=True, timeout=100, **_ready(place))


def _ready(place: Place) -> dict[str, Any]:
    (place.directory / "vbackup.yaml").write_text(json.dumps(place.config))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(str(site) for site in sorted(place.sites.iterdir()))}
    return {"env": env, "cwd": place.directory, "text": True}
