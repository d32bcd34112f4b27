"""Whole processes, measured: wall and CPU seconds, peak memory; and what a directory holds."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


def noise(path: Path, size: int, seed: int) -> None:
    """Write bytes that nothing compresses. In pieces: a child's peak memory is never counted below our own."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(rng.randbytes(min(1 << 20, size - start)))


@dataclass(frozen=True)
class Cost:
    """What a process cost: seconds, and its peak resident memory in bytes."""

    wall: float
    cpu: float
    memory: int


def cost(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, shell: str | None = None) -> Cost:
    """Run a command that must succeed; with ``shell`` run that text with ``argv`` as its arguments instead."""
    command = ["sh", "-c", shell, "sh", *map(str, argv)] if shell else [str(part) for part in argv]
    before = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env) as process:
        assert process.stdout
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in {0, 3}:
        sys.exit(f"{' '.join(command)}: exit {process.returncode}\n{output.decode(errors='replace')[-3000:]}")
    return Cost(time.monotonic() - before, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def stored(directory: Path) -> int:
    """Bytes of all files below a directory, as the disk has them."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"\n### {title}\n", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
