"""Eight machines at once against one that has all their data: the rate, shares that are fair, and memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.bench.context import Context
from tests.bench.goals import Report, at_least, at_most, median
from tests.bench.machines import MIB, forget, off, programs
from tests.bench.measure import Cost, cost, table
from tests.bench.site import Site
from vbackup.testing.lab.guest import Guest

MANY = 8
SIZE = 192 * MIB
"""Of each of the eight disks; no two have the same data."""
RATE = 0.95
FAIR = 1.5
"""Seconds of the slowest machine against those of the fastest; their work is alike, not equal."""
MEMORY = {"one": 300, "eight": 500}
"""MiB"""


def run(context: Context) -> Report:
    """Back up the one and the eight, in turn, into new repositories."""
    place = context.place / "many"
    place.mkdir()
    sides = dict(zip(MEMORY, _guests(context, place), strict=True))
    costs: dict[str, list[Cost]] = {side: [] for side in sides}
    shares: list[list[float]] = []
    for number in range(context.rounds):
        for side, guests in sorted(sides.items(), reverse=bool(number % 2)):
            what, seconds = _backed_up(place / "site", guests)
            costs[side].append(what)
            shares += [seconds] if side == "eight" else []
            print(f"  {side:6} {what.wall:6.1f} s wall {what.cpu:6.1f} s CPU {what.memory // MIB:5} MiB", flush=True)
    for guest in [*sides["one"], *sides["eight"]]:
        guest.remove()
    shutil.rmtree(place)
    return _report(costs, shares)


def _report(costs: dict[str, list[Cost]], shares: list[list[float]]) -> Report:
    walls = {side: median([each.wall for each in found]) for side, found in costs.items()}
    peaks = {side: max(each.memory for each in found) // MIB for side, found in costs.items()}
    spread = median([max(seconds) / min(seconds) for seconds in shares])
    rows = [
        [side, f"{walls[side]:.1f} s", f"{median([each.cpu for each in found]):.1f} s", f"{peaks[side]} MiB"]
        for side, found in costs.items()
    ]
    return Report(
        outcomes=[
            at_least("eight machines at once, rate of one with all their data", walls["one"] / walls["eight"], RATE),
            at_most("eight machines at once, slowest against fastest", spread, FAIR),
            *(at_most(f"peak memory, {side}", peaks[side], most, unit=" MiB") for side, most in MEMORY.items()),
        ],
        tables=[table("Eight machines at once and one, the same data", ["machines", "wall", "CPU", "peak"], rows)],
        raw={
            "many": {
                "costs": {side: [vars(each) for each in found] for side, found in costs.items()},
                "seconds of each of eight": shares,
            }
        },
    )


def _guests(context: Context, place: Path) -> tuple[list[Guest], list[Guest]]:
    """Return the one and the eight, which are switched on."""
    images = [place / f"many-{number}.raw" for number in range(MANY)]
    programs(images, SIZE // 8 if context.small else SIZE)
    whole = place / "one-for-all.raw"
    with whole.open("wb") as file:
        for image in images:
            with image.open("rb") as part:
                shutil.copyfileobj(part, file)
    one, *eight = [off(context.libvirtd, place, image) for image in (whole, *images)]
    for guest in (one, *eight):
        guest.start(paused=True)
    return [one], eight


def _backed_up(place: Path, guests: Sequence[Guest]) -> tuple[Cost, list[float]]:
    """Return what it cost, and the seconds of each machine."""
    site = Site(place, [guest.name for guest in guests], job={"parallel": MANY})
    said = place / "said"
    what = cost([said, *site.command("--json", "run")], env=site.env, shell='to=$1; shift; exec "$@" >"$to"')
    report = json.loads(said.read_text().splitlines()[-1])
    seconds = [float(machine["seconds"]) for machine in report["machines"]]
    for guest in guests:
        forget(guest)
    shutil.rmtree(place)
    return what, seconds
