"""How long 4 KiB take that are read from anywhere in a restore point: first from the disk, then once more.

In a process of its own, ``python -m tests.bench.random_reads DIRECTORY``, through the API that plugins have. Before it
begins nothing of the store is in the page cache.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.goals import Report, at_most, median
from tests.bench.measure import cost, table
from vbackup.api import Kind, Point, Range, Target
from vbackup.config import load
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.repository.layout import DEFAULT_CHUNK_SIZE

if TYPE_CHECKING:
    from tests.bench.context import Context

COLD, WARM = 5.0, 0.3
"""Milliseconds at the most."""
READS = 512
BYTES = 4096
SIZE = 4 << 30
FULL, SMALL = Path("/usr/bin"), Path("/usr/share/doc")
"""What is on the disk."""
VBACKUP = Path(sys.executable).with_name("vbackup")


def run(context: Context) -> Report:
    """Back up a disk with a file system on it, and read from all over it."""
    place = context.place / "random"
    _back_up(place, SMALL if context.small else FULL)
    command = [sys.executable, "-m", "tests.bench.random_reads", str(place)]
    seconds: dict[str, list[float]] = json.loads(subprocess.check_output(command))
    medians = {what: 1000 * median(each) for what, each in seconds.items()}
    rows = [[what, *(f"{1000 * each[len(each) * part // 100]:.2f}" for part in (50, 95, 99))] for what, each in
            ((what, sorted(each)) for what, each in seconds.items())]  # fmt: skip
    return Report(
        [
            at_most("4 KiB from anywhere in a point, from a local disk", medians["cold"], COLD, unit=" ms"),
            at_most("the same once more", medians["warm"], WARM, unit=" ms"),
        ],
        [table(f"Random reads: {READS} of 4 KiB, ms", ["", "median", "95 %", "99 %"], rows)],
        {"random_reads": seconds},
    )


def _back_up(place: Path, content: Path) -> None:
    place.mkdir(parents=True)
    disk = place / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(SIZE)
    cost(["mkfs.ext4", "-q", "-d", content, disk])
    (place / "vbackup.yaml").write_text(
        f"""
hypervisors: {{files: {{type: image, machines: {{web: [{disk}]}}}}}}
transports: {{disk: {{type: local, path: {place}/store}}}}
targets: {{main: {{type: repository, transport: disk, key: {{file: {place}/key}}}}}}
jobs: {{nightly: {{machines: ["files:*"], target: main}}}}
"""
    )
    env = os.environ | {"VBACKUP_STATE_DIR": f"{place}/state", "VBACKUP_CACHE_DIR": f"{place}/cache"}
    for command in ("init", "run"):
        cost([VBACKUP, "-c", place / "vbackup.yaml", command], env=env)


def _measure(place: Path) -> dict[str, list[float]]:
    """Return what each read took, in seconds."""
    registry = Registry.load()
    config = load(place / "vbackup.yaml", registry)
    with Site(config, registry, state_dir=place / "state", cache_dir=place / "cache") as site:
        offsets = _offsets(site.target("main"))
    _drop(place / "store")
    with Site(config, registry, state_dir=place / "state", cache_dir=place / "cache") as site:
        target = site.target("main")
        point = target.points()[0]
        return {what: _read(target, point, offsets) for what in ("cold", "warm")}


def _offsets(target: Target) -> list[int]:
    """Choose places in the disk's data, each in a chunk of its own."""
    point = target.points()[0]
    data = (extent for extent in target.extents(point, "disk0") if extent.kind is Kind.DATA)
    chunks = [at for extent in data for at in range(extent.offset, extent.end, DEFAULT_CHUNK_SIZE)]
    rng = random.Random(1)
    chosen = rng.sample(chunks, min(READS, len(chunks)))
    return [at + rng.randrange(DEFAULT_CHUNK_SIZE // BYTES) * BYTES for at in chosen]


def _drop(store: Path) -> None:
    """Have no file of the store in the page cache."""
    for path in store.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)  # what is dirty cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _read(target: Target, point: Point, offsets: Sequence[int]) -> list[float]:
    spent = []
    for offset in offsets:
        begun = time.perf_counter()
        (block,) = target.read(point, "disk0", [Range(offset, BYTES)])
        spent.append(time.perf_counter() - begun)
        assert len(block.data) == BYTES
    return spent


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]))))
