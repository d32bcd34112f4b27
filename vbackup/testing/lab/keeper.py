"""Keeps the lab's daemons and machines, and ends them all when the process that asked for them is gone.

Run as a program: ``python -m vbackup.testing.lab.keeper DIR [--libvirt]``. Each line of standard input is a JSON list,
the command to start; the answer is its process id. At the end of the input (closed, or its writer killed in whatever
way) every descendant is killed, also those that daemonized, and DIR is removed; with ``--libvirt`` so are its mounts
over libvirt's directories.

It is a child subreaper (prctl(2)): what a dead daemon leaves behind becomes its child, so nothing escapes, and nothing
else than what was started here is ever touched.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from vbackup.testing.lab import namespace

PR_SET_CHILD_SUBREAPER = 36


def children() -> list[int]:
    """Return the processes whose parent we are."""
    me, found = os.getpid(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name stands in parentheses and may hold anything, even parentheses.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == me and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    """Kill a process and wait until it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [])
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def start(command: list[str]) -> int:
    """Start a command in a session of its own; what it says goes to our standard error."""
    # Ignoring SIGCHLD survives exec, and a daemon that inherits it cannot wait for its own children.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_DFL),
    ).pid


def main() -> None:
    """Serve until the input ends, then clean up."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then reaps for us
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        for line in sys.stdin:
            print(start(json.loads(line)), flush=True)
    finally:
        while pids := children():
            for pid in pids:
                kill(pid)
        if sys.argv[2:] == ["--libvirt"]:
            namespace.leave(Path(sys.argv[1]))
        shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
