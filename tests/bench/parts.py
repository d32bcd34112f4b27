"""The parts of the benchmark, each to be run in a process of its own.

They are not in the main module: a process that is started afresh does not import that.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.bench.context import Context
from tests.bench.goals import Report
from vbackup.testing.lab.libvirtd import Libvirtd

PARTS = ("peers", "startup", "many", "guest_effect", "random_reads", "latency")
"""Modules with ``run(context) -> Report``."""
CHAOS_SECONDS = 600
SMALL_CHUNKS = 100_000
SMALL_CHAOS_SECONDS = 30


def measured(part: str, rounds: int, *, small: bool) -> Report:
    """Run a part, in a process of its own: what it starts is never counted as smaller than it is itself."""
    with Libvirtd() as libvirtd, tempfile.TemporaryDirectory(prefix="vbackup-bench-", dir="/var/tmp") as place:
        context = Context(libvirtd, Path(place), rounds, small)
        if part in OTHERS:
            return OTHERS[part](context)
        report: Report = importlib.import_module(f"tests.bench.{part}").run(context)
        return report


def _scale(context: Context) -> Report:
    from tests.bench import scale

    return Report(tables=[scale.run(context.libvirtd, context.place / "scale")])


def _index(context: Context) -> Report:
    from tests.bench import index

    chunks, points = (SMALL_CHUNKS, SMALL_CHUNKS // 100) if context.small else (index.CHUNKS, index.LISTED)
    return Report(tables=[index.run(context.place, chunks, points)])


def _transports(context: Context) -> Report:
    from tests.bench import transports

    return Report(tables=[transports.run(context.rounds if context.small else transports.ROUNDS)])


def _chaos(context: Context) -> Report:
    """Let ten minutes of chaos go by; see `tests.chaos`."""
    context.libvirtd.close()  # it has one of its own, and where the lab may not mount, there can be only one
    seconds = SMALL_CHAOS_SECONDS if context.small else CHAOS_SECONDS
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(seconds)]
    return Report(tables=[subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout])


OTHERS: dict[str, Callable[[Context], Report]] = {
    "scale": _scale,
    "index": _index,
    "transports": _transports,
    "chaos": _chaos,
}
