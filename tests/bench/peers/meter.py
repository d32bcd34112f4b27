"""A process and all that it starts, measured; and the QEMU that it reads from."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WARNED = 3
"""vbackup's exit status when all was done, with warnings."""


@dataclass(frozen=True)
class Spent:
    """What a run took: seconds, and bytes."""

    wall: float
    cpu: float
    """Of the process and its children."""
    served: float
    """CPU seconds of QEMU, for those who read from a running guest; they would be the process's own elsewhere."""
    memory: int
    """Peak resident memory of the largest process among them, without QEMU; never below that of who measures."""
    read: int
    """What was asked of the kernel by read(2) and the like: from files, by QEMU in the case of a running guest."""

    @property
    def all_cpu(self) -> float:
        """CPU seconds wherever they were spent."""
        return self.cpu + self.served


def spend(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    qemu: int | None = None,
) -> Spent:
    """Run a command that must succeed. ``qemu`` is the process id of the QEMU that serves it."""
    command = [str(part) for part in argv]
    before, served, read = time.monotonic(), _cpu(qemu), _read(qemu)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=cwd) as process:
        assert process.stdout
        output = process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its figures go when it is waited for
        read = _read(process.pid) if qemu is None else _read(qemu) - read
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - before
    if process.returncode not in {0, WARNED}:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{output.decode(errors='replace')[-3000:]}")
    return Spent(wall, usage.ru_utime + usage.ru_stime, _cpu(qemu) - served, usage.ru_maxrss * 1024, read)


def _cpu(pid: int | None) -> float:
    if pid is None:
        return 0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(pid: int | None) -> int:
    if pid is None:
        return 0
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])
