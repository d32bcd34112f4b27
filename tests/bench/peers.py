"""The main job beside its peers, on the same guest disk, in one run: full, unchanged, changed, restore.

virtnbdbackup backs up a twin of the guest (it refuses to run beside checkpoints that are not its own). restic and borg
get the disk's bytes as a file, since that is how they are used on images; making that file is not counted. Each is
used with its defaults. No goal is set here: these are figures.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.measure import Cost, cost, noise, stored, table
from tests.bench.site import Site
from tests.lab.domain import Disk, Machine
from tests.lab.guest import Guest, copy_disk
from tests.lab.libvirtd import Libvirtd

PHASES = ("full", "unchanged", "changed", "restore")
SOURCES = ("/usr/lib/x86_64-linux-gnu", "/usr/bin", "/usr/share")
DATA = 900 << 20
NOISE = 100 << 20
CHANGES = 400


@dataclass
class Result:
    """Costs by phase, one for each round, and bytes in the store after each phase."""

    name: str
    costs: dict[str, list[Cost]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def add(self, phase: str, what: Cost, size: int) -> None:
        self.costs.setdefault(phase, []).append(what)
        self.sizes[phase] = size

    def wall(self, phase: str) -> float:
        return statistics.median(c.wall for c in self.costs[phase])

    def cpu(self, phase: str) -> float:
        return statistics.median(c.cpu for c in self.costs[phase])


def make_disk(place: Path) -> Path:
    """Make a qcow2 of an ext4 file system with this machine's programs and libraries, and some noise."""
    tree = place / "tree"
    tree.mkdir(parents=True)
    left = DATA
    for source in SOURCES:
        for path in sorted(Path(source).rglob("*")):
            if left > 0 and path.is_file() and not path.is_symlink() and path.stat().st_size:
                to = tree / path.relative_to("/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)
                left -= path.stat().st_size
    noise(tree / "noise", NOISE, 1)
    raw, disk = place / "disk.raw", place / "disk.qcow2"
    subprocess.run(["truncate", "-s", "3G", raw], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-d", tree, raw], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk], check=True)
    shutil.rmtree(tree)
    raw.unlink()
    return disk


def change(guests: list[Guest], seed: int) -> None:
    """Write the same 4 to 64 KiB at the same random places of all guests."""
    rng = random.Random(seed)
    writes = [
        f"write -P {rng.randrange(1, 256)} {rng.randrange(40_000) * 65536} {rng.choice([4, 16, 64])}k"
        for _ in range(CHANGES)
    ]
    for guest in guests:
        guest.qemu_io("vda", *writes, "flush")


def as_file(guest: Guest, to: Path) -> Path:
    """Copy the guest's disk to a raw file."""
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", guest.disks["vda"], to], check=True)
    return to


class Peers:
    """One round: all tools in turn, phase by phase."""

    def __init__(self, place: Path, libvirtd: Libvirtd, disk: Path, results: dict[str, Result]) -> None:
        self.place = place
        self.results = results
        self.guests = [self._guest(libvirtd, name, disk) for name in ("ours", "theirs")]
        self.raw = as_file(self.guests[0], place / "disk.raw")
        self.site = Site(place / "vbackup", ["ours"])
        self.env = os.environ | {"RESTIC_PASSWORD": "x", "BORG_PASSPHRASE": "x", "BORG_BASE_DIR": f"{place}/borg-base",
                                 "RESTIC_CACHE_DIR": f"{place}/restic-cache"}  # fmt: skip
        for command in (
            ["restic", "-q", "init", "-r", place / "restic"],
            ["borg", "init", "-e", "repokey-blake2", place / "borg"],
        ):
            subprocess.run(command, env=self.env, check=True, capture_output=True)

    def _guest(self, libvirtd: Libvirtd, name: str, disk: Path) -> Guest:
        image = copy_disk(disk, self.place / f"{name}.qcow2")
        guest = Guest.define(libvirtd, Machine(name, self.place / name, (Disk("vda", path=image),)))
        guest.start(paused=True)
        return guest

    def run(self) -> None:
        """All phases."""
        self._backups("full")
        self._backups("unchanged")
        change(self.guests, 1)
        as_file(self.guests[0], self.raw)
        self._backups("changed")
        self._restores()
        for guest in self.guests:
            guest.remove()

    def _note(self, tool: str, phase: str, run: Callable[[], Cost], directory: Path) -> None:
        what = run()
        self.results.setdefault(tool, Result(tool)).add(phase, what, stored(directory))
        print(
            f"  {phase:10} {tool:18} {what.wall:6.1f} s wall {what.cpu:6.1f} s CPU {what.memory >> 20:5} MiB",
            flush=True,
        )

    def _backups(self, phase: str) -> None:
        place, level = self.place, "full" if phase == "full" else "inc"
        self._note("vbackup", phase, lambda: self.site("run"), self.site.store)
        virtnbd = ["virtnbdbackup", "-d", "theirs", "-l", level, "-o", place / "virtnbd", "-z"]
        self._note("virtnbdbackup -z", phase, lambda: cost(virtnbd), place / "virtnbd")
        restic = ["restic", "-q", "-r", place / "restic", "backup", self.raw]
        self._note("restic", phase, lambda: cost(restic, env=self.env), place / "restic")
        borg = ["borg", "create", f"{place}/borg::{phase}", self.raw]
        self._note("borg", phase, lambda: cost(borg, env=self.env), place / "borg")

    def _restores(self) -> None:
        place = self.place
        out = place / "out"
        out.mkdir()
        point = f"{self.site.point('ours')['id']}"
        ours = ["restore", point, "--disk", f"vda={out}/ours.raw", "--format", "raw"]
        self._note("vbackup", "restore", lambda: self.site(*ours), self.site.store)
        subprocess.run(["cmp", self.raw, out / "ours.raw"], check=True)
        virtnbd = ["virtnbdrestore", "-i", place / "virtnbd", "-o", out / "virtnbd"]
        self._note("virtnbdbackup -z", "restore", lambda: cost(virtnbd), place / "virtnbd")
        restic = ["restic", "-q", "-r", place / "restic", "restore", "latest", "--target", out / "restic"]
        self._note("restic", "restore", lambda: cost(restic, env=self.env), place / "restic")
        borg = ["borg", "extract", "--sparse", f"{place}/borg::changed"]
        inside = out / "borg"
        inside.mkdir()
        shell = 'cd "$1"; shift; exec "$@"'
        self._note("borg", "restore", lambda: cost([inside, *borg], env=self.env, shell=shell), place / "borg")


def run(libvirtd: Libvirtd, place: Path, rounds: int) -> str:
    """Run all rounds; return the report and leave raw figures in ``results.json``."""
    disk = make_disk(place)
    results: dict[str, Result] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        here = place / f"round-{number}"
        here.mkdir()
        Peers(here, libvirtd, disk, results).run()
        shutil.rmtree(here)
    Path("bench-peers.json").write_text(
        json.dumps(
            {r.name: {p: [vars(c) for c in cs] for p, cs in r.costs.items()} for r in results.values()}, indent=1
        )
    )
    ours = results["vbackup"]
    rows = [
        [
            result.name,
            *(
                f"{result.wall(p):.1f} s ({result.wall(p) / ours.wall(p):.1f}x), {result.cpu(p):.1f} s CPU"
                for p in PHASES
            ),
            f"{result.sizes['full'] >> 20} + {(result.sizes['changed'] - result.sizes['unchanged']) / 2**20:.1f} MiB",
        ]
        for result in results.values()
    ]
    return table("The main job and its peers (wall time, times ours)", ["", *PHASES, "stored: full + change"], rows)
