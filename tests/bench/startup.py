"""How long a command takes that has next to nothing to do: whole processes, from their start to their end.

And what those processes spend their first moments on: modules, by what importing each alone costs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.goals import Report, at_most, median
from tests.bench.measure import cost, table
from tests.bench.site import VBACKUP, Site
from tests.bench.synthetic import MACHINES, Synthetic
from vbackup.api import SecretRef
from vbackup.repository.founding import describe
from vbackup.repository.keys import unlock
from vbackup.repository.sealing import Keys
from vbackup_local.transport import Local, LocalOptions

if TYPE_CHECKING:
    from tests.bench.context import Context

HELP = 0.15
LIST = 0.3
"""Seconds at the most."""
POINTS = 400
CHUNKS = 4000
WARM_UPS, RUNS = 2, 10
TOP = 8
_IMPORTED = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", re.MULTILINE)


def run(context: Context) -> Report:
    """Measure ``--help``, and the listing of hundreds of points of 20 machines on a local store."""
    site = _site(context.place / "startup")
    commands: dict[str, list[str | Path]] = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "vbackup --help": [VBACKUP, "--help"],
        "vbackup list": [VBACKUP, "-c", site.place / "vbackup.yaml", "list"],
        "vbackup list --json": [VBACKUP, "-c", site.place / "vbackup.yaml", "list", "--json"],
    }
    walls = {what: _walls(site, argv) for what, argv in commands.items()}
    spent = {what: median(each) for what, each in walls.items()}
    bare = f"python alone: {spent['python -c pass']:.3f} s"
    listed = f"vbackup list, {POINTS} points of {MACHINES} machines"
    return Report(
        [
            at_most("vbackup --help", spent["vbackup --help"], HELP, bare, unit=" s"),
            at_most(listed, spent["vbackup list"], LIST, bare, unit=" s"),
        ],
        [_durations(walls), *(_profile(site, what, argv) for what, argv in list(commands.items())[1:3])],
        {"startup": walls},
    )


def _site(place: Path) -> Site:
    """Return a site whose repository has points. Modules are compiled once, as where vbackup is installed."""
    site = Site(place, ["*"])
    site.env = {**site.env, "PYTHONPYCACHEPREFIX": f"{place}/pycache", "PYTHONDONTWRITEBYTECODE": ""}
    transport = Local(LocalOptions(path=site.store))
    repository = bytes.fromhex(describe(transport, "main").id)
    _, ring = unlock(transport, SecretRef(file=place / "key").resolve(), repository)
    Synthetic(site.store, Keys(ring, repository)).fill(CHUNKS, POINTS)
    return site


def _walls(site: Site, argv: Sequence[str | Path]) -> list[float]:
    """Return the seconds of each run."""
    return [cost(argv, env=site.env).wall for _ in range(WARM_UPS + RUNS)][WARM_UPS:]


def _durations(walls: dict[str, list[float]]) -> str:
    rows = [[what, f"{min(each):.3f}", f"{median(each):.3f}", f"{max(each):.3f}"] for what, each in walls.items()]
    return table(f"Start-up, {RUNS} runs", ["seconds", "least", "median", "most"], rows)


def _profile(site: Site, what: str, argv: Sequence[str | Path]) -> str:
    """Return the table of the modules that take longest."""
    command = [sys.executable, "-X", "importtime", *argv]
    said = subprocess.run(command, env=site.env, check=True, capture_output=True, text=True).stderr
    found = sorted(((int(own), name) for own, name in _IMPORTED.findall(said)), reverse=True)
    rows = [[name, f"{own / 1000:.1f}"] for own, name in found[:TOP]]
    title = f"{what}: {len(found)} modules imported, {sum(own for own, _ in found) / 1000:.0f} ms with the profiler"
    return table(title, ["module", "ms"], rows)
