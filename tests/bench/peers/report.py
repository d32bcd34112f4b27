"""Tables of all phases, and whether goals were met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.bench.goals import Outcome, at_least, at_most
from tests.bench.guests import Disks
from tests.bench.measure import table
from tests.bench.peers.result import GROWING, PHASES, Result

OURS, LOOP, JOB, VIRTNBD = "vbackup", "bare loop", "libvirt's job alone", "virtnbdbackup -z"
MIB = 1 << 20
GIB = 1 << 30
MEMORY = 300
"""MiB"""
FULL = {VIRTNBD: 1.4, "restic": 4, "borg": 3, "benji": 2.2}
RESTORE = {"restic": 3.0}
CONSTANT = 1.0
"""Seconds that a run may take besides what libvirt's job takes, whatever the size."""

Results = Mapping[str, Result]


def tables(results: Results, disks: Disks) -> list[str]:
    """Return a table of each phase: medians of all rounds, and the peak of memory."""
    sizes = disks.sizes()
    head = ["", "wall", "to ours", "CPU with QEMU's", "CPU s/GiB", "memory", "read", "stored"]
    found = []
    for phase, title in PHASES.items():
        data = sizes["second" if phase == "second" else "first"]
        rows = [_row(result, results[OURS], phase, data) for result in results.values() if phase in result.spent]
        found.append(table(f"{title[0].upper()}{title[1:]}, {data / GIB:.2f} GiB of data", head, rows))
    return found


def _row(result: Result, ours: Result, phase: str, data: int) -> list[str]:
    wall, cpu = result.wall(phase), result.cpu(phase)
    whole = phase not in {"unchanged", "changed"}
    return [
        result.name,
        f"{wall:.2f} s",
        f"{wall / ours.wall(phase):.2f}x",
        f"{cpu:.2f} s",
        f"{cpu * GIB / data:.1f}" if whole else "",
        f"{result.memory(phase) >> 20} MiB",
        f"{result.read(phase) / MIB:.0f} MiB",
        f"{result.stored(phase) / MIB:.1f} MiB" if phase in GROWING and result.stored(phase) else "",
    ]


def outcomes(results: Results) -> list[Outcome]:
    """Compare with all goals of the main job."""
    return [*_full(results), *_increments(results), *_stored(results), *_back(results), _memory(results[OURS])]


def _full(results: Results) -> Iterator[Outcome]:
    ours = results[OURS]
    loop = results[LOOP].wall("full") / ours.wall("full")
    yield at_least("full: rate against the bare loop", loop, 0.9, _said(results, "full"))
    for name, goal in FULL.items():
        yield at_least(f"full: times as fast as {name}", results[name].wall("full") / ours.wall("full"), goal)
    others = {name: result.cpu("full") for name, result in _peers(results, "full").items() if result.deduplicates}
    said = ", ".join(f"{name} {cpu:.1f} s" for name, cpu in others.items())
    yield at_most("full: CPU against the best that deduplicates", ours.cpu("full") / min(others.values()), 1, said)


def _increments(results: Results) -> Iterator[Outcome]:
    ours, job = results[OURS], results[JOB].wall("unchanged")
    said = f"libvirt's job alone {job:.2f} s"
    unchanged = ours.wall("unchanged") - job
    yield at_most("unchanged run, less libvirt's job", unchanged, CONSTANT, said, unit=" s")
    loop = results[LOOP].wall("changed")
    limit = round(1.25 * loop + CONSTANT + job, 2)
    said = f"1.25 x {loop:.2f} s of the bare loop, and {CONSTANT + job:.2f} s"
    yield at_most("changed run", ours.wall("changed"), limit, said, unit=" s")


def _stored(results: Results) -> Iterator[Outcome]:
    for phase, goal in (("full", 1.03), ("changed", 1.0), ("second", 1.0)):
        sizes = {name: result.stored(phase) for name, result in _peers(results, phase).items()}
        said = ", ".join(f"{name} {size / MIB:.1f} MiB" for name, size in sizes.items())
        what = f"{PHASES[phase]}: stored, against the smallest"
        yield at_most(what, results[OURS].stored(phase) / min(sizes.values()), goal, said)


def _back(results: Results) -> Iterator[Outcome]:
    ours, loop = results[OURS], results[LOOP]
    for phase in ("restore_raw", "restore_qcow2"):
        title, wall, others = PHASES[phase], ours.wall(phase), _peers(results, phase)
        rate = loop.wall("restore_raw") / wall
        yield at_least(f"{title}: rate against the bare loop reversed", rate, 0.85, _said(results, phase))
        fastest = min(others.values(), key=lambda result: result.wall(phase))
        yield at_least(f"{title}: times as fast as the fastest peer", fastest.wall(phase) / wall, 1, fastest.name)
    for name, goal in RESTORE.items():
        ratio = results[name].wall("restore_raw") / ours.wall("restore_raw")
        yield at_least(f"restore to raw: times as fast as {name}", ratio, goal)
    verify = loop.wall("verify") / ours.wall("verify")
    yield at_least("verify: rate against the bare loop reversed", verify, 0.9, _said(results, "verify"))


def _memory(ours: Result) -> Outcome:
    peak = max(ours.memory(phase) for phase in PHASES)
    return at_most("peak memory of all phases", peak / MIB, MEMORY, unit=" MiB")


def _peers(results: Results, phase: str) -> dict[str, Result]:
    limits = {OURS, LOOP, JOB, "nbdcopy to null"}
    return {name: result for name, result in results.items() if name not in limits and phase in result.spent}


def _said(results: Results, phase: str) -> str:
    """Return how long all others took."""
    others = (result for name, result in results.items() if name != OURS and phase in result.spent)
    return f"ours {results[OURS].wall(phase):.1f} s, " + ", ".join(f"{o.name} {o.wall(phase):.1f} s" for o in others)
