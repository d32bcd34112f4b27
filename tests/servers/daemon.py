"""Processes of one test server: they end with it, also when the tests are killed."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self


class Daemons:
    """A directory and the daemons that live in it, under `vbackup.testing.lab.keeper`. A context manager."""

    def __init__(self, name: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=f"vbackup-{name}-", dir="/var/tmp"))
        """Gone in the end. On a real disk: servers of files need extended attributes, handles or direct I/O."""
        with (self.root / "log").open("w") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "vbackup.testing.lab.keeper", str(self.root)],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def log(self) -> str:
        """The end of what the daemons said."""
        return (self.root / "log").read_text(errors="replace")[-4000:]

    def spawn(self, *command: str | Path) -> int:
        """Start a process; return its id."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        print(json.dumps([str(word) for word in command]), file=self._keeper.stdin, flush=True)
        return int(self._keeper.stdout.readline())

    def close(self) -> None:
        """End all of them, and remove the directory."""
        self._keeper.communicate()


def run(*command: str | Path, stdin: bytes = b"") -> bytes:
    """Run a program to its end and return what it prints; one that fails is an error that says what it said."""
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {(done.stdout + done.stderr).decode()}"
    return done.stdout


def end(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal and wait until the process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, how)
        assert select.select([handle], [], [], 30)[0], f"process {pid} does not end"
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0
