"""Check: whether the files of all points are there and fit together, and, when asked for, read as what was written."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import CheckOrder, Corrupt, Damage, Point, clock
from vbackup_image.points.layout import MACHINE, load, point_directory
from vbackup_image.points.stored import stored
from vbackup_image.points.verify import checked_document, point_file
from vbackup_qemu.host import Host, translated

_READINGS = "readings.json"


def structure(host: Host, sockets: Path, root: Path, point: Point) -> list[Damage]:
    """Return what of a point is missing or does not fit, without reading a disk. Raises: `NotFound`, `Busy`."""
    directory = point_directory(root, point)
    damage: list[Damage] = []
    with _noted(damage, point, ""):
        checked_document(directory / MACHINE, load(directory).machine)
    for name in point.files:
        with _noted(damage, point, name):
            point_file(root, point, name)
    for disk in point.disks:
        with (
            _noted(damage, point, disk.key, disk.size),
            stored(host, sockets, root, point, disk.key) as opened,
        ):
            opened.served()
    return damage


@contextmanager
def _noted(damage: list[Damage], point: Point, disk: str, size: int = 0) -> Iterator[None]:
    try:
        yield
    except Corrupt as error:
        damage.append(Damage(point.id, point.machine, disk, 0, size, error.message))


class Readings:
    """Which point read well when, by this host, in a file that may be deleted at any time."""

    def __init__(self, state: Path) -> None:
        self._path = state / _READINGS
        self._times: dict[str, float] = self._load()

    def _load(self) -> dict[str, float]:
        try:
            found = json.loads(self._path.read_text())
            return {str(point): float(time) for point, time in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}

    def note(self, point: Point) -> None:
        """Remember that a point read well."""
        self._times[point.id] = clock.now().timestamp()
        with translated(f"writing {self._path}"):
            # Threads may write it at once; a name that comes again is no leftover for ever of one that died.
            fresh = self._path.with_suffix(f".{threading.get_native_id()}")
            fresh.write_text(json.dumps(self._times))
            fresh.replace(self._path)

    def due(self, points: Sequence[Point], order: CheckOrder) -> list[Point]:
        """Return the points that an order means, those first that were not read for the longest time."""
        self._times = {point.id: self._times[point.id] for point in points if point.id in self._times}
        now = clock.now()
        since = (now - order.since if order.since is not None else now).timestamp()
        read = {point.id: self._times.get(point.id, 0.0) for point in points}
        read = {point: time if time <= now.timestamp() else 0.0 for point, time in read.items()}
        chosen: list[Point] = []
        left = sum(map(_size, points)) * order.percent / 100
        for point in sorted(points, key=lambda point: (read[point.id], point.time)):
            if left <= 0 or read[point.id] > since:
                break
            chosen.append(point)
            left -= _size(point)
        return chosen


def _size(point: Point) -> int:
    return sum(disk.size for disk in point.disks)


class Counted:
    """Passes progress on, and adds it up."""

    def __init__(self, progress: Callable[[int], None]) -> None:
        self.total = 0
        self._progress = progress

    def __call__(self, size: int) -> None:
        """Count bytes."""
        self.total += size
        self._progress(size)
