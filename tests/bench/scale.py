"""The cost of an incremental follows the change, not the disk: 100 MiB changed on 10 GiB and on 1 TiB."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Cost, noise, table
from tests.bench.site import Site
from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd

SIZES = {"10 GiB": 10 << 30, "1 TiB": 1 << 40}
BLOCK = 64 << 10
CHANGED = 100 << 20
ROUNDS = 3
GOAL = 1.5
MEMORY = 300 << 20


@dataclass(frozen=True)
class Incremental:
    """What one incremental came to."""

    cost: Cost
    full: Cost
    read: int
    stored: int


def measure(libvirtd: Libvirtd, place: Path, name: str, size: int, *, scattered: bool) -> Incremental:
    """Fill some of a thin disk, back it up, and measure incrementals after 100 MiB were changed; return the median."""
    guest = Guest.define(libvirtd, Machine(name, place / name, (Disk("vda", size=size),)))
    noise(place / "noise", CHANGED, 2)
    guest.start(paused=True)
    guest.qemu_io("vda", *(f"write -s {place}/noise {at} 100M" for at in range(0, 1 << 30, 200 << 20)), "flush")
    site = Site(place / f"{name}-site", [name])
    full = site("run")
    rounds = []
    for seed in range(ROUNDS):
        change(guest, place / "noise", size, seed, scattered=scattered)
        what = site("run")
        point = site.point(name)
        rounds.append(Incremental(what, full, point["read"], point["stored"]))
    guest.remove()
    subprocess.run(["rm", "-rf", place / name, place / f"{name}-site"], check=True)
    return sorted(rounds, key=lambda incremental: incremental.cost.wall)[ROUNDS // 2]


def change(guest: Guest, fresh: Path, size: int, seed: int, *, scattered: bool) -> None:
    """Write 100 MiB of new noise, in one place or in blocks all over the disk."""
    if not scattered:
        noise(fresh, CHANGED, seed + 10)
        guest.qemu_io("vda", f"write -s {fresh} {size // 2} 100M", "flush")
        return
    places = sorted(random.Random(seed).sample(range(size // BLOCK), CHANGED // BLOCK))
    pieces = [fresh.with_name(f"fresh-{number}") for number in range(len(places))]
    for number, piece in enumerate(pieces):
        noise(piece, BLOCK, seed * len(places) + number)
    guest.qemu_io("vda", *(f"write -s {p} {at * BLOCK} 64k" for p, at in zip(pieces, places, strict=True)), "flush")
    for piece in pieces:
        piece.unlink()


def run(libvirtd: Libvirtd, place: Path) -> str:
    """Measure both sizes, with the change in one place and strewn over the disk."""
    place.mkdir()
    rows, failed = [], []
    for scattered in (False, True):
        how = "1,600 places" if scattered else "one place"
        small, large = (
            measure(libvirtd, place, f"scale-{size >> 30}", size, scattered=scattered) for size in SIZES.values()
        )
        figures = {
            "read": (small.read, large.read), "stored": (small.stored, large.stored),
            "wall": (small.cost.wall, large.cost.wall), "CPU": (small.cost.cpu, large.cost.cpu),
        }  # fmt: skip
        ratios = {name: large_one / max(small_one, 1e-9) for name, (small_one, large_one) in figures.items()}
        peak = max(c.memory for i in (small, large) for c in (i.cost, i.full))
        rows.append([how, *(f"{ratio:.2f}" for ratio in ratios.values()), f"{peak >> 20} MiB"])
        failed += [f"{how}: {name} {ratio:.2f}" for name, ratio in ratios.items() if ratio > GOAL]
        failed += [f"{how}: {peak >> 20} MiB"] if peak > MEMORY else []
        print(f"  {how}: 10 GiB {small}\n  {how}: 1 TiB {large}", flush=True)
    report = table(
        f"100 MiB changed: a 1 TiB disk against a 10 GiB disk (goal: ratios up to {GOAL}, memory below 300 MiB)",
        ["change in", "read", "stored", "wall", "CPU", "peak memory"], rows,
    )  # fmt: skip
    return report + ("\n\nMissed: " + "; ".join(failed) if failed else "\n\nAll met.")
