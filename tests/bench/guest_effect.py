"""What a backup costs the machine that it is of: the rate of its own 4 KiB random writes, inside of a real guest.

The writes never stop; by turns vbackup makes a full backup, without a limit and with one, virtnbdbackup makes one, and
for as long QEMU has a backup job that nobody reads from: before the first write to each 64 KiB it keeps what was there,
whoever makes the backup. Each is compared with the rate right before and after it, undisturbed. The guest's processor
is emulated here, and competes with the backup for the processors of this machine.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import libvirt

from tests.bench.context import Context
from tests.bench.goals import Report, at_least, median
from tests.bench.machines import MIB, forget, programs
from tests.bench.measure import cost, table
from tests.bench.site import Site
from vbackup.testing.lab.build import GuestFiles, guest_files
from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.guest import Guest, copy_disk
from vbackup.testing.lab.libvirtd import until

SIZE = 1536 * MIB
WRITTEN = 256
"""MiB of the disk that the guest writes to again and again, as a database does."""
QUIET_SECONDS = 10
LIMIT = "16MiB/s"
AS_GOOD = 1.0
UNDISTURBED = 0.9
OURS, LIMITED = "vbackup", f"vbackup, limit {LIMIT}"
ALONE, THEIRS = "QEMU's job, nothing read", "virtnbdbackup -z"
_WRITER = Path(__file__).with_name("guest") / "writer.c"
_NAME = "written-to"

Work = Callable[[], object]


@dataclass(frozen=True)
class Effect:
    """Writes a second while something went on, and around it; and the seconds that it took."""

    rate: float
    undisturbed: float
    seconds: float

    @property
    def kept(self) -> float:
        """The part of the rate that is left."""
        return self.rate / self.undisturbed


def run(context: Context) -> Report:
    """Measure all in turn, round by round."""
    place = context.place / "guest-effect"
    place.mkdir()
    guest = _guest(context, place)
    found: dict[str, list[Effect]] = {what: [] for what in (OURS, LIMITED, ALONE, THEIRS)}
    works: dict[str, Callable[[], Work]] = {
        OURS: lambda: _ours(place / "backup"),
        LIMITED: lambda: _ours(place / "backup", limit={"upload": LIMIT}),
        ALONE: lambda: lambda: _job_alone(guest, place, found[LIMITED][-1].seconds),
        THEIRS: lambda: lambda: _theirs(place / "backup"),
    }
    rest = partial(time.sleep, 2 if context.small else QUIET_SECONDS)
    quiet, _ = _rate(guest, rest)
    for _ in range(context.rounds):
        for what, prepare in works.items():
            rate, seconds = _rate(guest, prepare())
            forget(guest)
            shutil.rmtree(place / "backup", ignore_errors=True)
            before, (quiet, _) = quiet, _rate(guest, rest)
            found[what].append(effect := Effect(rate, (before + quiet) / 2, seconds))
            print(f"  {what:24} {rate:6.0f} writes/s, {effect.kept:4.0%}, in {seconds:5.1f} s", flush=True)
    guest.remove()
    shutil.rmtree(place)
    return _report(found)


def _report(found: dict[str, list[Effect]]) -> Report:
    kept = {what: median([effect.kept for effect in effects]) for what, effects in found.items()}
    rows = [
        [
            what,
            f"{median([effect.rate for effect in effects]):.0f} a second",
            f"{kept[what]:.0%}",
            f"{median([effect.seconds for effect in effects]):.1f} s",
        ]
        for what, effects in found.items()
    ]
    what = "4 KiB random writes in a guest, during a full backup"
    peers = f"{THEIRS}: {kept[THEIRS]:.0%} of undisturbed, ours {kept[OURS]:.0%}"
    return Report(
        outcomes=[
            at_least(f"{what}, against virtnbdbackup", kept[OURS] / kept[THEIRS], AS_GOOD, peers),
            at_least(f"{what} with a limit", kept[LIMITED], UNDISTURBED, f"{ALONE}: {kept[ALONE]:.0%} of undisturbed"),
        ],
        tables=[table(what, ["", "writes", "of undisturbed", "time"], rows)],
        raw={"guest_effect": {what: [asdict(effect) for effect in effects] for what, effects in found.items()}},
    )


def _rate(guest: Guest, work: Work) -> tuple[float, float]:
    """Writes a second while ``work`` is done, and its seconds."""
    began, before = _written(guest)
    work()
    ended, after = _written(guest)
    return (after - before) / (ended - began), ended - began


def _guest(context: Context, place: Path) -> Guest:
    """A guest that writes to its second disk all the time."""
    files = _with_writer(place, guest_files())
    raw, image = place / "data.raw", place / "data.qcow2"
    programs([raw], SIZE // 8 if context.small else SIZE)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True)
    raw.unlink()
    disks = (Disk("vda", path=copy_disk(files.disk, place / "system.qcow2")), Disk("vdb", path=image))
    guest = Guest.define(context.libvirtd, Machine(_NAME, place / _NAME, disks, memory=192, kernel=files))
    guest.start()
    guest.wait_ready()
    guest.exec(f"/sbin/writer /dev/vdb {WRITTEN // 8 if context.small else WRITTEN} </dev/null >/run/writes 2>&1 &")
    return guest


def _with_writer(place: Path, files: GuestFiles) -> GuestFiles:
    """The kernel unpacks one archive after the other."""
    program = place / "root/sbin/writer"
    program.parent.mkdir(parents=True)
    subprocess.run(["gcc", "-O2", "-static", "-o", program, _WRITER], check=True)
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        cwd=place / "root",
        input=b"sbin/writer\n",
        capture_output=True,
        check=True,
    )
    initrd = place / "initrd.img"
    initrd.write_bytes(files.initrd.read_bytes() + gzip.compress(archive.stdout))
    return replace(files, initrd=initrd)


def _written(guest: Guest) -> tuple[float, int]:
    """Seconds by the guest's clock, and writes, since it began."""
    while len(found := guest.exec("tail -n 2 /run/writes").splitlines()) < 2:
        pass
    seconds, writes = found[0].split()
    return float(seconds), int(writes)


def _ours(place: Path, **options: object) -> Work:
    site = Site(place, [_NAME], transport={"type": "local", "path": f"{place}/store"} | options)
    return lambda: site("run")


def _theirs(place: Path) -> None:
    cost(["virtnbdbackup", "-d", _NAME, "-l", "full", "-z", "-o", place])


def _job_alone(guest: Guest, place: Path, seconds: float) -> None:
    job = f"<domainbackup mode='pull'><server transport='unix' socket='{place}/socket'/></domainbackup>"
    guest.domain.backupBegin(job, None)
    time.sleep(seconds)
    guest.domain.abortJob()
    until(lambda: guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, "the backup job to end")
