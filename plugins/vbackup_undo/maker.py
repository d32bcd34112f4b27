"""Who made something: a process on a host, so that a later run can tell whether its maker still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError


class Maker(BaseModel):
    """A process: written into everything of ours that outlives it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    owner: str
    """The repository that it worked for."""
    host: str
    machine: str = ""
    """The host's machine-id(5), empty where it has none."""
    boot: str
    pid: int
    start: int
    """Clock ticks from the boot to its start (proc(5), stat, field 22): tells a pid that was used again."""
    created: int = 0
    """Seconds since the epoch."""
    pids: str = ""
    """Its PID namespace (namespaces(7)), in which alone its pid means something; empty where that was not recorded."""

    @classmethod
    def here(cls, owner: str, created: int) -> Self:
        """Return this process."""
        pid = os.getpid()
        return cls(
            owner=owner,
            host=socket.gethostname(),
            machine=_machine(),
            boot=_boot(),
            pid=pid,
            start=_start(pid),
            created=created,
            pids=_pids(),
        )

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the maker that `model_dump_json` wrote, None for anything else."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None

    def is_here(self) -> bool:
        """Whether it is or was on this host, where its end can be known.

        No single thing tells hosts apart: cloned ones share their machine-id, many are called localhost, containers
        share their host's boot. What was made since we booted, but in another boot, was made elsewhere.
        """
        if (self.machine and self.machine != _machine()) or self.host != socket.gethostname():
            return False
        if self.boot != _boot():
            return self.created < _booted()
        return self.pids in {"", _pids()}

    def is_this(self) -> bool:
        """Whether it is this very process."""
        return self.is_here() and self.pid == os.getpid() and not self.is_dead()

    def is_dead(self) -> bool:
        """Whether it is sure to have ended."""
        return self.is_here() and not (self.boot == _boot() and self.start == _start(self.pid))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _machine() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except FileNotFoundError:
        return ""


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _booted() -> int:
    """Return when this host was booted (proc(5), stat, btime), in seconds since the epoch."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def _pids() -> str:
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def _start(pid: int) -> int:
    """Return when a process started, -1 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return int(stat.rpartition(")")[2].split()[19])
