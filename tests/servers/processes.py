"""Whole families of processes: servers that fork for each client."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.daemon import end


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


def freeze(pid: int) -> list[int]:
    """Stop a process and its descendants in the middle of what they do; return them, for `thaw`."""
    stopped: list[int] = []
    while fresh := [member for member in family(pid) if member not in stopped]:
        for member in fresh:
            _tell(member, signal.SIGSTOP)
        stopped += fresh
    return stopped


def thaw(pids: list[int]) -> None:
    """Let frozen processes go on."""
    for pid in pids:
        _tell(pid, signal.SIGCONT)


def end_family(pid: int) -> None:
    """Kill a process and all its descendants at one instant; none gets to fork or to say goodbye."""
    for member in freeze(pid):
        end(member)


@contextmanager
def traced(pid: int, log: Path, *calls: str) -> Iterator[list[str]]:
    """Tell which of these system calls a process and its descendants make in the block: "fsync x", one a line.

    The list is filled when the block is left. Instead of all its arguments a call has the last parts of the paths.
    """
    pids = family(pid)
    command = ["strace", "-f", "-y", "-e", f"trace={','.join(calls)}", "-o", str(log)]
    command += [word for member in pids for word in ("-p", str(member))]
    seen: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        for _ in pids:
            assert "attached" in strace.stderr.readline()
        try:
            yield seen
        finally:
            strace.terminate()
    for line in log.read_text().splitlines():
        if found := re.search(r" (\w+)\((.*)\) += 0$", line):
            names = re.findall(r"[\"<]([^\"<>]*)[\">]", re.sub(r"(?<=[\">]), ", " ", found[2]))
            seen.append(" ".join([found[1], *(name.rpartition("/")[2] for name in names)]))


def _tell(pid: int, what: signal.Signals) -> None:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        pass
