"""A large repository: ten million chunks, ten thousand points; and the listing of a million points.

Each step runs in a process of its own, which says what it took: ``python -m tests.bench.index STEP DIRECTORY``. Its
peak memory includes the interpreter's.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measure import table
from tests.bench.synthetic import MACHINES, SAMPLE, Synthetic, make_point, some_misses
from tests.support import CODECS, SECRET, codec
from vbackup.api import ObjectInfo, PruneOrder, TargetContext
from vbackup.repository.layout import ID_SIZE, POINTS
from vbackup.repository.points import point_key, split_point, write_point
from vbackup.repository.target import Repository, RepositoryOptions
from vbackup_local.transport import Local, LocalOptions

CHUNKS = 10_000_000
LISTED = 10_000
MANY = 1_000_000
MEMORY = 500 << 20
SECOND = 1.0


@dataclass(frozen=True)
class Step:
    """What a step took, in seconds and bytes, and what else it says."""

    wall: float
    cpu: float
    peak: int
    said: dict[str, Any] = field(default_factory=dict)


class Crowd(Local):
    """A store with many more points than it has: their names only, in an order of no use."""

    def __init__(self, options: LocalOptions, points: list[str]) -> None:
        super().__init__(options)
        self._points = points

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List the crowd."""
        if prefix != POINTS:
            yield from super().list(prefix)
            return
        yield from (ObjectInfo(point_key(point), 5000) for point in self._points)


def _open(place: Path, cache: str, transport: Local | None = None) -> Repository:
    store = transport or Local(LocalOptions(path=place / "store"))
    context = TargetContext(
        "main", store, [codec(name) for name in CODECS], codec, lambda: SECRET, place / cache, place / f"{cache}-state"
    )
    return Repository(RepositoryOptions(), context)


# -- steps, each in a process of its own ------------------------------------------------------------------------------


def build(place: Path, chunks: int, points: int) -> dict[str, Any]:
    """Make the repository."""
    (place / "store").mkdir(parents=True)
    target = _open(place, "cache")
    target.init()
    filler = Synthetic(place / "store", target._open().keys)
    (place / "sample").write_bytes(b"".join(filler.fill(chunks, points)))
    return {"packs": filler.packs}


def look(place: Path) -> dict[str, Any]:
    """Open, and bring the cache up to the store."""
    found = _open(place, "cache")._open().store.look()
    assert not found.notes
    return {"cache": sum(path.stat().st_size for path in (place / "cache").iterdir())}


def look_up(place: Path) -> dict[str, Any]:
    """Look for chunks that are there, and for such as are not; answer how many in a second."""
    store = _open(place, "cache")._open().store
    cache, trust = store.cache, store.look().trust
    data = (place / "sample").read_bytes()
    hits = [data[at : at + ID_SIZE] for at in range(0, len(data), ID_SIZE)]
    said: dict[str, Any] = {}
    for what, ids, there in (("hits", hits, True), ("misses", some_misses(hits), False)):
        singles = ids[: SAMPLE // 4]
        before = time.monotonic()
        assert all(bool(cache.known([chunk], trust)) is there for chunk in singles)
        said[f"single {what}"] = len(singles) / (time.monotonic() - before)
        before = time.monotonic()
        found = sum(len(cache.known(ids[at : at + 4096], trust)) for at in range(0, len(ids), 4096))
        said[f"batched {what}"] = len(ids) / (time.monotonic() - before)
        assert found if there else not found
        before = time.monotonic()
        assert bool(cache.locate(ids)) is there
        said[f"located {what}"] = len(ids) / (time.monotonic() - before)
    return said


def plan(place: Path) -> dict[str, Any]:
    """Tell what a prune would do."""
    report = _open(place, "cache").prune(PruneOrder(dry_run=True))
    assert report.freed
    return {"freed": report.freed, "stored": report.stored, "notes": report.notes}


def points_cold(place: Path) -> dict[str, Any]:
    """List all points; each is read from the store."""
    return {"points": len(_open(place, "cold").points())}


def points_warm(place: Path) -> dict[str, Any]:
    """List all points again."""
    return points_cold(place)


def build_many(place: Path, many: int) -> dict[str, Any]:
    """Fill a cache with the heads of many points, as if they had been read."""
    opened = _open(place, "crowd")._open()
    chains = opened.store.chains
    names: list[str] = []
    numbers = iter(range(many))
    while batch := list(itertools.islice(numbers, MACHINES * 50)):
        chain = chains.new(os.urandom(16), [])
        heads = {}
        for number in batch:
            point = make_point(number, os.urandom(ID_SIZE), 1 << 30)
            stored = split_point(point.id, write_point(opened.keys, chain, point, b""))
            heads[point.id] = (stored.origin, stored.head)
        opened.cache.set_points(heads, [])
        names += heads
    (place / "names").write_text("\n".join(names))
    return {}


def points_many(place: Path) -> dict[str, Any]:
    """List many points that are in the cache."""
    names = (place / "names").read_text().split("\n")
    target = _open(place, "crowd", Crowd(LocalOptions(path=place / "store"), names))
    count = len(target.points())
    assert count == len(names)
    return {"points": count}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    step.__name__: step for step in (build, look, look_up, plan, points_cold, points_warm, build_many, points_many)
}


def _run(name: str, place: Path, *numbers: int) -> Step:
    argv = [sys.executable, "-m", "tests.bench.index", name, place, *map(str, numbers)]
    step = Step(**json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout))
    print(f"  {name:12} {step.wall:7.1f} s wall {step.cpu:7.1f} s CPU {step.peak >> 20:5} MiB {step.said}", flush=True)
    return step


def run(place: Path, chunks: int = CHUNKS, points: int = LISTED, many: int = MANY) -> str:
    """Make the repository, go through all steps, and report."""
    made = _run("build", place, chunks, points)
    rows, failed = [], []
    found = {}
    for name, what in (
        ("look", "open, nothing cached"),
        ("look", "open again"),
        ("look_up", "look up"),
        ("plan", "plan a prune"),
    ):
        step = found[name] = _run(name, place)
        million = chunks / 1_000_000
        times = ["", ""] if name == "look_up" else [f"{each / million:.2f}" for each in (step.wall, step.cpu)]
        rows.append([what, *times, f"{step.peak >> 20} MiB"])
        failed += [f"{what}: {step.peak >> 20} MiB"] if step.peak > MEMORY else []
    rates = "; ".join(f"{what} {rate / 1000:.0f} k/s" for what, rate in found["look_up"].said.items())
    listed = []
    for name, what in (("points_cold", "nothing cached"), ("points_warm", "again")):
        step = _run(name, place)
        listed.append([f"{points:,}, {what}", f"{step.wall:.2f}", f"{step.cpu:.2f}", f"{step.peak >> 20} MiB"])
    failed += [f"{points:,} points again: {step.wall:.2f} s"] if step.wall > SECOND * points / LISTED else []
    _run("build_many", place, many)
    step = _run("points_many", place)
    listed.append([f"{many:,}, again", f"{step.wall:.2f}", f"{step.cpu:.2f}", f"{step.peak >> 20} MiB"])
    head = f"{chunks:,} chunks in {made.said['packs']:,} packs (goal: memory below 500 MiB)"
    return "\n".join((
        table(head, ["", "wall s per million", "CPU s per million", "peak memory"], rows),
        f"\nLook-ups: {rates}.",
        table("Points listed (goal: 10,000 again in a second)", ["", "wall s", "CPU s", "peak memory"], listed),
        "\nMissed: " + "; ".join(failed) if failed else "\nAll met.",
    ))  # fmt: skip


def main() -> None:
    """One step; prints what it took."""
    name, place, *numbers = sys.argv[1:]
    before, cpu = time.monotonic(), time.process_time()
    said = STEPS[name](Path(place), *map(int, numbers))
    wall, cpu = time.monotonic() - before, time.process_time() - cpu
    print(json.dumps(asdict(Step(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, said))))


if __name__ == "__main__":
    main()
