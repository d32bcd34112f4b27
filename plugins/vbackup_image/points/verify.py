"""Verification: everything of a point is read and compared with its sums, by way of QEMU, as any user would read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from blake3 import blake3

from vbackup.api import CaptureLost, Corrupt, Damage, Kind, NotFound, Point, PointDisk, Range, Unavailable, split
from vbackup_image.points.layout import FILES, MACHINE, load, point_directory, read_document, text
from vbackup_image.points.stored import StoredDisk, stored
from vbackup_qemu.host import Host
from vbackup_qemu.nbd import ALLOCATION

_READ = 4 << 20
_ZERO_FLAG = 2


def checked_document(path: Path, digest: str) -> bytes:
    """Return the bytes of a small file. Raises: `Corrupt` when it is missing or not what was written."""
    try:
        data = read_document(path)
    except NotFound as error:
        raise Corrupt(f"{path} is missing") from error
    if blake3(data).hexdigest() != digest:
        raise Corrupt(f"{path} is not what was written")
    return data


def point_file(root: Path, point: Point, name: str) -> bytes:
    """Return a small file of a point. Raises: `Corrupt`."""
    digest = text(point.files[name], "blake3", r"[0-9a-f]{64}")
    return checked_document(point_directory(root, point) / FILES / name, digest)


class Verifier:
    """Checks points; ``progress`` gets bytes of disk."""

    def __init__(self, host: Host, sockets: Path, root: Path, progress: Callable[[int], None]) -> None:
        self._host = host
        self._sockets = sockets
        self._root = root
        self._progress = progress

    def check(self, point: Point) -> list[Damage]:
        """Return what of a point cannot be read back. Raises: `NotFound` when it was deleted."""
        directory = point_directory(self._root, point)
        try:
            checked_document(directory / MACHINE, load(directory).machine)
            damage = []
        except Corrupt as error:
            damage = [Damage(point.id, point.machine, "", 0, 0, error.message)]
        for name in point.files:
            try:
                point_file(self._root, point, name)
            except Corrupt as error:
                damage.append(Damage(point.id, point.machine, name, 0, 0, error.message))
        for disk in point.disks:
            damage += self._disk(point, disk)
        return damage

    def _disk(self, point: Point, disk: PointDisk) -> list[Damage]:
        try:
            with stored(self._host, self._sockets, self._root, point, disk.key) as opened:
                opened.served()
                bad = list(_joined(self._bad(opened)))
                return [Damage(point.id, point.machine, disk.key, *range_, opened.wrong) for range_ in bad]
        except Corrupt as error:
            self._progress(disk.size)
            return [Damage(point.id, point.machine, disk.key, 0, disk.size, error.message)]

    def _bad(self, opened: StoredDisk) -> Iterator[Range]:
        """Yield what is wrong, ascending; where a range cannot be read at all, the others still are."""
        counted = done = 0
        try:
            for _, block in opened.read_all(self._everything(opened)):
                yield from opened.bad(block)
                done = block.offset + len(block.data)
                self._progress(done - counted)
                counted = done
        except Corrupt:
            for range_ in self._everything(opened):
                if range_.offset < done:
                    continue
                try:
                    for _, block in opened.read_all([range_]):
                        yield from opened.bad(block)
                except Corrupt:
                    yield range_
        self._progress(opened.disk.size - counted)

    def _everything(self, opened: StoredDisk) -> Iterator[Range]:
        """Yield what holds data, and what should hold none but is not zeros by its nature."""
        for extent in opened.sums.extents():
            if extent.kind is Kind.DATA:
                yield from split([Range(extent.offset, extent.length)], _READ)
                continue
            try:
                states = list(opened.served().status(ALLOCATION, [Range(extent.offset, extent.length)]))
            except (Unavailable, CaptureLost):  # reading will tell what is the matter
                states = [(extent.offset, extent.length, 0)]
            for offset, length, flags in states:
                if not flags & _ZERO_FLAG:
                    yield from split([Range(offset, length)], _READ)


def _joined(ranges: Iterator[Range]) -> Iterator[Range]:
    last: Range | None = None
    for range_ in ranges:
        if last is not None and last.offset + last.length >= range_.offset:
            last = Range(last.offset, max(last.offset + last.length, range_.offset + range_.length) - last.offset)
            continue
        if last is not None:
            yield last
        last = range_
    if last is not None:
        yield last
