"""What is counted: a machine's first backup and the next ones, a restore, a verification and a listing.

Each phase opens the repository anew, as a command does. ``python -m tests.bench.counts.phases calls DIRECTORY`` prints
the counts of all phases as JSON. Memory is measured apart, as counting takes some, and by ``backup`` and ``restore``
in two processes, as with commands: what the C library keeps from the one is nothing to the other.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tests.bench.counts import data
from tests.bench.counts.counting import Calls, CountingTransport
from tests.support import back_up, repository
from vbackup.api import HypervisorContext, Point, RestoreRequest
from vbackup.engine.restore import Restore
from vbackup.repository.target import Repository
from vbackup_image.options import Image, ImageOptions
from vbackup_image.plugin import ImageHypervisor
from vbackup_local.transport import Local, LocalOptions

PROCESSORS = {"calls": 1, "backup": 2, "restore": 2}
"""That the work is spread over, wherever it runs. Which chunks are neighbours in a pack is up to the threads: with one
processor they take turns, and what is counted is hardly another on a busy machine."""
LARGE = 64 << 30
"""Bytes of the disk whose backup and restore must not need more memory than a small one's."""
T = TypeVar("T")
Figures = dict[str, float]
"""Counts by ``phase: what``."""


class Lab:
    """Machines that are images, and a repository of their own in a directory."""

    def __init__(self, place: Path, **images: Path) -> None:
        self._place = place
        (place / "store").mkdir(parents=True, exist_ok=True)
        self.transport = CountingTransport(Local(LocalOptions(path=place / "store")))
        machines = {name: (Image(path=path),) for name, path in images.items()}
        self._images = ImageHypervisor(ImageOptions(machines=machines), HypervisorContext("lab", place))

    def init(self) -> None:
        """Make the repository."""
        with self._target() as target:
            target.init()

    def back_up(self, name: str) -> Point:
        """Make a point."""
        with self._target() as target:
            return back_up(target, self._images, name)

    def restore(self, point: Point) -> None:
        """Restore to a raw file."""
        request = RestoreRequest(disks={"disk0": self._place / "restored.raw"}, format="raw", overwrite=True)
        with self._target() as target:
            Restore(target, self._images, threading.Event(), lambda key, done, size: None).run(point, request)

    def verify(self, point: Point) -> None:
        """Read and check all of a point."""
        with self._target() as target:
            assert target.verify([point], lambda size: None) == []

    def list(self) -> Sequence[Point]:
        """List all points."""
        with self._target() as target:
            return target.points()

    @contextmanager
    def _target(self) -> Iterator[Repository]:
        target = repository(self.transport, self._place / "cache", chunk_size=data.CHUNK)
        try:
            yield target
        finally:
            target.close()


def calls(place: Path) -> Figures:
    """Count everything but memory."""
    random.seed(1)  # which blocks are probed
    raw, tracked, tiny = place / "copy.raw", place / "web.qcow2", place / "tiny.raw"
    data.disk(raw)
    data.tracked(raw, tracked)
    tiny.write_bytes(bytes(range(256)) * 4096)
    counted = Calls()
    first = Lab(place / "first", tiny=tiny)  # whatever is only imported, or made, once is so by now
    _all_once(first, "tiny")
    lab, figures = Lab(place / "lab", web=tracked, copy=raw), Figures()
    lab.init()

    def count(phase: str, chunks: int, work: Callable[[], T]) -> T:
        lab.transport.counts.clear()
        counted.take()
        result = work()
        figures[f"{phase}: calls a chunk" if chunks else f"{phase}: calls"] = round(counted.take() / (chunks or 1), 1)
        figures.update({f"{phase}: {what}": number for what, number in sorted(lab.transport.counts.items())})
        if isinstance(result, Point):
            figures[f"{phase}: read"] = result.read
        return result

    count("full", data.CHUNKS, lambda: lab.back_up("web"))
    count("unchanged", 0, lambda: lab.back_up("web"))
    data.change(tracked)
    changed = count("changed", 2 * data.CHANGES, lambda: lab.back_up("web"))
    count("known", data.CHUNKS, lambda: lab.back_up("copy"))
    count("restore", data.CHUNKS, lambda: lab.restore(changed))
    count("verify", data.CHUNKS, lambda: lab.verify(changed))
    count("list", 0, lab.list)
    counted.stop()
    return figures


def backup(place: Path) -> Figures:
    """Measure the peak memory, in bytes, of a backup of a large disk that is sparse for the most part."""
    raw = place / "large.raw"
    data.disk(raw)
    os.truncate(raw, LARGE)
    lab = Lab(place / "lab", large=raw)
    lab.init()
    lab.back_up("large")
    return {"large disk: backup: memory": _peak()}


def restore(place: Path) -> Figures:
    """Measure that of a restore of what `backup` has made there."""
    lab = Lab(place / "lab", large=place / "large.raw")
    lab.restore(lab.list()[0])
    return {"large disk: restore: memory": _peak()}


def _peak() -> int:
    # The kernel's word on this program alone: getrusage(2) begins with the peak of the parent.
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak
    return int(peak[1]) << 10


def _all_once(lab: Lab, name: str) -> None:
    lab.init()
    point = lab.back_up(name)
    lab.back_up(name)
    lab.restore(point)
    lab.verify(point)
    lab.list()


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: PROCESSORS[sys.argv[1]]])
    print(json.dumps({"calls": calls, "backup": backup, "restore": restore}[sys.argv[1]](Path(sys.argv[2]))))
