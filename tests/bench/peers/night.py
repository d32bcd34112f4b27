"""One round: the first guest's full backup, an unchanged and a changed run, restores and checks, and a second guest.

Tools take turns phase by phase, in an order of their own each round. Guests run, but are paused, so that what changes
between two phases is the same for all. Those who read files get the disk's bytes as a raw file, which nobody has to
make; it is a new file each night as far as they can tell, as a dump or a snapshot is. What a tool reads is in memory,
and what others have written on the disk, before it starts: nobody waits for the disk, and nobody for another.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.bench import difference
from tests.bench.guests import Disks
from tests.bench.measure import stored
from tests.bench.peers.result import Result
from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd

if TYPE_CHECKING:
    from tests.bench.peers.meter import Spent
    from tests.bench.peers.tool import Tool


class Night:
    """The guests of a round, and files."""

    def __init__(self, libvirtd: Libvirtd, place: Path, disks: Disks) -> None:
        self.place = place
        self.disks = disks
        self.phase = ""
        self._libvirtd = libvirtd
        self._guests: dict[str, Guest] = {}
        self._link = place / "source"
        self.source = self._link / "disk.raw"
        """The disk that is to be backed up now, as a raw file."""

    def __enter__(self) -> Self:
        self.place.mkdir(parents=True)
        self._show("first")
        return self

    def __exit__(self, *exc: object) -> None:
        for guest in self._guests.values():
            guest.remove()

    def guest(self, name: str) -> Guest:
        """Return a twin of the first guest."""
        if name not in self._guests:
            self._guests[name] = self._start(name, "first")
        return self._guests[name]

    @contextmanager
    def second_guest(self, name: str) -> Iterator[Guest]:
        """Have a twin of the second guest for a while."""
        guest = self._start(self.second_name(name), "second")
        os.sync()
        yield guest
        image = guest.disks["vda"]
        guest.remove()
        image.unlink()

    def second_name(self, name: str) -> str:
        """Return what a twin of the second guest is called."""
        return f"{name}-second"

    def run(self, phase: str, tools: Sequence[Tool], results: Mapping[str, Result]) -> None:
        """Let all tools do one thing."""
        self.phase = phase
        if phase == "changed":
            self._show("changed")
            for guest in self._guests.values():
                difference.write(guest, self.disks.pieces)
        elif phase == "second":
            self._show("second")
        os.utime(self.source)
        for tool in tools:
            before = stored(tool.store)
            spent = self._restore(tool) if phase.startswith("restore") else self._do(tool)
            if spent is not None:
                results[tool.name].add(phase, spent, stored(tool.store) - before)
                _say(phase, tool, spent)

    def _do(self, tool: Tool) -> Spent | None:
        warm(tool.store if self.phase == "verify" else tool.guest.disks["vda"] if tool.guest else self.source)
        os.sync()
        did: Spent | None = getattr(tool, self.phase)()
        return did

    def _restore(self, tool: Tool) -> Spent | None:
        """Restore, and compare with what it should be."""
        out = self.place / "out"
        out.mkdir()
        warm(tool.store)
        os.sync()
        spent: Spent | None = getattr(tool, self.phase)(out)
        if spent is not None:
            restored = max((path for path in out.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
            kind = self.phase.removeprefix("restore_")
            subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", kind, self.source, restored], check=True)
        shutil.rmtree(out)
        return spent

    def _show(self, which: str) -> None:
        """Let ``source`` be another disk."""
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self.disks.raw(which).parent)

    def _start(self, name: str, which: str) -> Guest:
        image = self.place / f"{name}.qcow2"
        subprocess.run(["cp", "--sparse=never", self.disks.image(which), image], check=True)  # zeros stay written
        guest = Guest.define(self._libvirtd, Machine(name, self.place / name, (Disk("vda", path=image),)))
        guest.start(paused=True)
        return guest


def warm(place: Path) -> None:
    """Read a file, or all below a directory, into memory; holes, of which there is nothing to read, are left out."""
    for path in [place] if place.is_file() else place.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                _read(file.fileno(), path.stat().st_size)


def _read(file: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            at = os.lseek(file, at, os.SEEK_DATA)
        except OSError:  # ENXIO: holes only
            return
        end = os.lseek(file, at, os.SEEK_HOLE)
        while at < end:
            at += len(os.pread(file, min(1 << 20, end - at), at))


def _say(phase: str, tool: Tool, spent: Spent) -> None:
    figures = f"{spent.wall:7.2f} s wall {spent.all_cpu:7.2f} s CPU {spent.memory >> 20:5} MiB"
    print(f"  {phase:13} {tool.name:19} {figures}", flush=True)
