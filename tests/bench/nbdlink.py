"""Reading a disk by NBD over a link with latency: all of it, and what a dirty bitmap says of many small places."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.context import Context
from tests.bench.delay import answers, delayed
from tests.bench.machines import MIB, programs
from tests.servers.daemon import Daemons
from tests.support import repository
from vbackup.api import Kind, Range, align, split
from vbackup.engine.copy import READ_SIZE, DiskCopy
from vbackup.repository.layout import DEFAULT_CHUNK_SIZE
from vbackup.testing.lab.libvirtd import until
from vbackup_local.transport import Local, LocalOptions
from vbackup_qemu import image
from vbackup_qemu.host import LocalHost
from vbackup_qemu.nbd import ALLOCATION, NbdClient, bitmap_context
from vbackup_qemu.server import serve
from vbackup_qemu.source import NbdDisk

SIZE = 1024 * MIB
THIN = 64 << 30
"""Bytes of the disk that has changed in a few places."""
PLACES = 8000
BLOCK = 64 << 10
CHUNK = DEFAULT_CHUNK_SIZE
READ, STORED, TOLD, CHANGED = (
    "read all", "read all and store it", f"learn {PLACES} changed places", f"read {PLACES} changed places"
)  # fmt: skip
GOALS = (STORED, CHANGED)

Seconds = dict[str, dict[str, list[float]]]
"""By what was done, and by delay, of each round."""
Work = Callable[[NbdDisk, Path], None]


def run(context: Context, delays: Mapping[str, float]) -> Seconds:
    """Measure each, by turns with and without delay."""
    place = context.place / "nbd-link"
    place.mkdir()
    raw, thin = place / "all.raw", place / "thin.qcow2"
    programs([raw], SIZE // 8 if context.small else SIZE)
    _change(thin, PLACES // 20 if context.small else PLACES)
    seconds: Seconds = {what: {delay: [] for delay in delays} for what in (READ, STORED, TOLD, CHANGED)}
    for number in range(context.rounds):
        for delay, trip in sorted(delays.items(), reverse=bool(number % 2)):
            works: list[tuple[str, Path, Work]] = [
                (READ, raw, _read), (STORED, raw, _store), (TOLD, thin, _learn), (CHANGED, thin, _read)
            ]  # fmt: skip
            for what, path, work in works:
                took = _timed(path, trip, work, place / "store")
                seconds[what][delay].append(took)
                print(f"  NBD {delay:8} {what:28} {took:6.2f} s", flush=True)
    shutil.rmtree(place)
    return seconds


def _timed(path: Path, trip: float, work: Work, store: Path) -> float:
    with ExitStack() as stack:
        if path.suffix == ".raw":
            client = stack.enter_context(NbdClient(stack.enter_context(_all(path, trip))))
            disk = NbdDisk("vda", client, bitmap=None, full_reason="all is wanted")
        else:
            contexts = (ALLOCATION, bitmap_context("changes"))
            client = stack.enter_context(NbdClient(stack.enter_context(_with_bitmap(path, trip)), contexts=contexts))
            disk = NbdDisk("vda", client, bitmap="changes", full_reason=None)
        began = time.monotonic()
        work(disk, store)
        return time.monotonic() - began


@contextmanager
def _all(path: Path, trip: float) -> Iterator[Path]:
    """nbdkit delays reads and what it tells of the disk, as many at once as it has threads: more than we ask for."""
    with Daemons("nbdkit") as daemons:
        socket = daemons.root / "nbd"
        delays = (f"rdelay={trip * 1000:.0f}ms", f"delay-extents={trip * 1000:.0f}ms")
        daemons.spawn("nbdkit", "--foreground", "--unix", socket, "--filter=delay", "file", path, *delays)
        until(lambda: answers(str(socket)), "nbdkit")
        yield socket


@contextmanager
def _with_bitmap(path: Path, trip: float) -> Iterator[Path]:
    """Only QEMU shows its bitmaps, and it cannot delay: a link does it."""
    with (
        tempfile.TemporaryDirectory(prefix="vb-") as sockets,
        serve(LocalHost(), path, "qcow2", bitmap="changes", sockets=Path(sockets)) as socket,
        delayed(str(socket), trip / 2) as address,
    ):
        yield Path(address)


def _read(disk: NbdDisk, _store: Path) -> None:
    """As the engine does, but forget what was read."""
    extents = align(disk.extents(full=disk.full_reason is not None), CHUNK, disk.size)
    data = (Range(extent.offset, extent.length) for extent in extents if extent.kind is Kind.DATA)
    for _ in disk.read(split(data, READ_SIZE)):
        pass


def _learn(disk: NbdDisk, _store: Path) -> None:
    for _ in disk.extents(full=False):
        pass


def _store(disk: NbdDisk, store: Path) -> None:
    """What a full backup does between the capture and the point."""
    target = repository(Local(LocalOptions(path=store)), store.with_name("cache"), chunk_size=CHUNK)
    target.init()
    with target.writer() as writer:
        DiskCopy(disk, "raw", None, writer, threading.Event(), lambda _: None).run()
    target.close()
    shutil.rmtree(store)
    shutil.rmtree(store.with_name("cache"))


def _change(path: Path, places: int) -> None:
    """Make a thin disk that has changed in so many places since its bitmap began."""
    image.create(LocalHost(), path, "qcow2", THIN)
    image.add_bitmap(LocalHost(), path, "changes")
    starts = sorted(random.Random(1).sample(range(THIN // BLOCK), places))
    writes = "".join(f"write -P {number % 255 + 1} {at * BLOCK} {BLOCK}\n" for number, at in enumerate(starts))
    subprocess.run(["qemu-io", "-f", "qcow2", path], input=writes, text=True, stdout=subprocess.DEVNULL, check=True)
