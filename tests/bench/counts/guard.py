"""Counting in processes of their own, and the committed baseline."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.counts.compare import Difference, compare
from tests.bench.counts.phases import Figures

ROOT = Path(__file__).parents[3]
BASELINE = ROOT / "tests/bench/baseline.json"
_MEMORY_RUNS = 3


def counted(*what: str) -> Figures:
    """Return the figures of fresh processes, one after another in the same directory: see `phases`."""
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="vbackup-counts-", dir="/var/tmp") as place:
        for each in what:
            command = [sys.executable, "-m", "tests.bench.counts.phases", each, place]
            figures |= json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    return figures


def least_memory() -> Figures:
    """Return the least memory of some runs: one that is held up by others on the machine has more under way."""
    runs = [counted("backup", "restore") for _ in range(_MEMORY_RUNS)]
    return {what: min(run[what] for run in runs) for what in runs[0]}


def differences(figures: Figures) -> list[Difference]:
    """Compare with the baseline.

    Newer versions of Python run the same with fewer calls: with another one, only what is worse counts.
    """
    baseline: dict[str, Any] = json.loads(BASELINE.read_text())
    found = compare(baseline["figures"], figures)
    return found if baseline["python"] == _python() else [each for each in found if each.is_worse]


def update(figures: Figures) -> None:
    """Make these figures the baseline."""
    BASELINE.write_text(json.dumps({"python": _python(), "figures": figures}, indent=2) + "\n")


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])
