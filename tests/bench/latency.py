"""What a link of 20 ms costs when its bandwidth has no limit: to a store, and to the server of a disk.

Both sides of each comparison go the same way; only the delay differs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.bench import nbdlink
from tests.bench.context import Context
from tests.bench.delay import delayed
from tests.bench.goals import Outcome, Report, at_least, median
from tests.bench.machines import MIB, off, programs
from tests.bench.measure import table
from tests.bench.site import Site
from tests.servers.daemon import Daemons
from tests.servers.radosgw import Radosgw

GOAL = 0.8
DELAYS = {"no delay": 0.0, "20 ms": 0.02}
"""Round trips in seconds."""
SIZE = 1024 * MIB
PHASES = ("full", "unchanged", "restore")

Seconds = dict[str, dict[str, list[float]]]
"""By what was done, and by delay, of each round."""


def run(context: Context) -> Report:
    """Measure the main job with a bucket, then reading by NBD."""
    report = Report()
    size = 128 * MIB if context.small else SIZE
    seconds = _store(context, size)
    report.outcomes += [_kept(f"S3 20 ms away: {phase}", seconds[phase]) for phase in PHASES if phase != "unchanged"]
    seconds |= nbdlink.run(context, DELAYS)
    report.outcomes += [_kept(f"NBD 20 ms away: {phase}", seconds[phase]) for phase in nbdlink.GOALS]
    rows = [[what, *(f"{median(took[delay]):.2f} s" for delay in DELAYS), f"{_ratio(took):.2f}"]
            for what, took in seconds.items()]  # fmt: skip
    report.tables.append(table(f"A link of 20 ms; S3 with {size // MIB} MiB", ["", *DELAYS, "rate kept"], rows))
    report.raw["latency"] = seconds
    return report


def _kept(what: str, took: dict[str, list[float]]) -> Outcome:
    return at_least(f"{what}, rate kept", _ratio(took), GOAL)


def _ratio(took: dict[str, list[float]]) -> float:
    without, with_delay = (median(took[delay]) for delay in DELAYS)
    return without / with_delay


def _store(context: Context, size: int) -> Seconds:
    """Back up into an empty bucket, again with nothing changed, and restore; by turns with and without delay."""
    place = context.place / "latency"
    place.mkdir()
    image = place / "far-store.raw"
    programs([image], size)
    guest = off(context.libvirtd, place, image)
    guest.start(paused=True)
    seconds: Seconds = {phase: {delay: [] for delay in DELAYS} for phase in PHASES}
    with Daemons("radosgw") as daemons:
        server = Radosgw(daemons)
        for number in range(context.rounds):
            for delay, trip in _in_turn(number):
                with delayed(server.endpoint.removeprefix("http://"), trip / 2) as address:
                    for phase, took in _round(server, address, place / "site", guest.name):
                        seconds[phase][delay].append(took)
                        print(f"  S3 {delay:8} {phase:10} {took:6.2f} s", flush=True)
    guest.remove()
    shutil.rmtree(place)
    return seconds


def _in_turn(number: int) -> list[tuple[str, float]]:
    return sorted(DELAYS.items(), reverse=bool(number % 2))


def _round(server: Radosgw, address: str, place: Path, machine: str) -> Iterator[tuple[str, float]]:
    entry = server.entry()
    transport = entry | {"type": "s3", "endpoint": f"http://{address}"}
    site = Site(place, [machine], transport=transport)
    yield "full", site("run").wall
    yield "unchanged", site("run").wall
    out = place / "out.raw"
    restore = ["restore", str(site.point(machine)["id"]), "--disk", f"vda={out}", "--format", "raw"]
    yield "restore", site(*restore).wall
    server.remove(entry)
    shutil.rmtree(place)
