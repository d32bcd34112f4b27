"""How the demo talks, and how it runs the real command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

VBACKUP = Path(sys.executable).with_name("vbackup")
DONE = (0, 3)
"""Exit codes of ``vbackup`` after which all is well; 3 means that there are warnings."""


class Story:
    """Tells what happens, step by step, with the time that it took."""

    def __init__(self, config: Path, state: Path) -> None:
        self._environment = os.environ | {
            "VBACKUP_CONFIG": str(config),
            "VBACKUP_STATE_DIR": str(state / "state"),
            "VBACKUP_CACHE_DIR": str(state / "cache"),
        }
        self._began = time.monotonic()
        self._bright, self._plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.monotonic() - self._began

    def chapter(self, title: str) -> None:
        """Begin a new part."""
        print(f"\n{self._bright}[{self.seconds:3.0f} s] {title}{self._plain}", flush=True)

    def say(self, text: str) -> None:
        """Tell something."""
        for line in text.splitlines():
            print(f"    {line}", flush=True)

    def vbackup(self, *arguments: str) -> None:
        """Run the command for all to see. Raises `subprocess.CalledProcessError`."""
        print(f"    {self._bright}$ vbackup {shlex.join(arguments)}{self._plain}", flush=True)
        began = time.monotonic()
        run = subprocess.Popen(
            [VBACKUP, *arguments], env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert run.stdout is not None
        with run.stdout:
            for line in run.stdout:
                self.say("  " + line.rstrip())
        if run.wait() not in DONE:
            raise subprocess.CalledProcessError(run.returncode, ["vbackup", *arguments])
        self.say(f"  ({time.monotonic() - began:.1f} s)")
