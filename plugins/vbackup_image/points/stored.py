"""A disk of a restore point, read back: every byte is compared with its sum."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vbackup.api import Block, CaptureLost, Corrupt, NotFound, Point, PointDisk, Range, Unavailable, VBackupError
from vbackup_image.points import sums
from vbackup_image.points.chain import held_layers
from vbackup_image.points.layout import image_name, point_directory, sums_name, text
from vbackup_image.points.sums import BLOCK, ENTRY, Sums
from vbackup_qemu.host import Host, translated
from vbackup_qemu.nbd import ALLOCATION, NbdClient
from vbackup_qemu.server import serve

_SECTOR = 512
"""Image files are whole sectors long, in bytes; a disk that is not has zeros after its end there."""


class StoredDisk:
    """A disk of a point, which is held while this is open; see `stored`."""

    def __init__(self, host: Host, sockets: Path, point: Point, disk: PointDisk, layers: list[Path], of: Sums) -> None:
        self._host = host
        self._sockets = sockets
        self._point = point
        self.disk = disk
        self.path = layers[0]
        self.format = text(disk.content, "format", r"qcow2|raw")
        self.layers = layers
        """Its image, and all files below that."""
        self.sums = of
        self._unread = deque(layers)
        self._stack = ExitStack()
        self._client: NbdClient | None = None

    def close(self) -> None:
        """End the server, if there is one."""
        self._client = None
        self._stack.close()

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """Read ranges in order, several under way. By one thread at a time.

        Raises: `Corrupt` naming the disk and the range.
        """
        for range_, block in self.read_all(ranges):
            bad = next(self.bad(block), None)
            if bad is not None:
                raise Corrupt(f"{self.what} at {bad.offset}: {self.wrong}")
            start = range_.offset - block.offset
            yield Block(range_.offset, memoryview(block.data)[start : start + range_.length])

    @property
    def what(self) -> str:
        """What to call it in messages."""
        return f"disk {self.disk.key} of restore point {self._point.machine}@{self._point.id[:8]}"

    @property
    def wrong(self) -> str:
        """What is the matter with bytes that are not right."""
        return f"{self.path} does not read as what was written"

    def read_all(self, ranges: Iterable[Range]) -> Iterator[tuple[Range, Block]]:
        """Read ranges, widened to whole blocks, without comparing anything."""
        asked: deque[Range] = deque()

        def widened() -> Iterator[Range]:
            for range_ in ranges:
                asked.append(range_)
                start = range_.offset - range_.offset % BLOCK
                end = min(-(-(range_.offset + range_.length) // BLOCK) * BLOCK, self.disk.size)
                yield Range(start, end - start)

        try:
            for block in self.served().read(widened()):
                yield asked.popleft(), block
        except (Unavailable, CaptureLost) as error:
            self._check_files()
            raise Corrupt(f"{self.what}: {self.wrong}") from error

    def bad(self, block: Block) -> Iterator[Range]:
        """Yield those ranges of whole blocks that are not what was written."""
        found = sums.entries(block.data)
        right = self.sums.get(block.offset // BLOCK, len(found) // ENTRY)
        for first, end in sums.runs(found, right):
            offset = block.offset + first * BLOCK
            yield Range(offset, min(block.offset + end * BLOCK, self.disk.size) - offset)

    def served(self) -> NbdClient:
        """Return the client of a server of the image. Raises: `Corrupt` if it cannot be opened as what it was."""
        if self._client is None:
            try:
                socket = self._stack.enter_context(
                    serve(self._host, self.path, self.format, sockets=self._sockets, connections=1)
                )
            except VBackupError as error:
                if type(error) is VBackupError:  # none of the reasons that have to do with anything but the content
                    raise Corrupt(f"{self.what}: {error.message}") from error
                raise
            client = self._stack.enter_context(NbdClient(socket, contexts=(ALLOCATION,), label=self.what))
            if client.size != -(-self.disk.size // _SECTOR) * _SECTOR:
                raise Corrupt(f"{self.what}: {self.path} has {client.size} bytes, not {self.disk.size}")
            self._client = client
        return self._client

    def _check_files(self) -> None:
        """Raise what the store has to say. If all can be read, it is the image that makes no sense."""
        while self._unread:
            with translated(f"reading {self._unread[0]}"), self._unread[0].open("rb") as file:
                while file.read(1 << 20):
                    pass
            self._unread.popleft()


@contextmanager
def stored(host: Host, sockets: Path, root: Path, point: Point, key: str) -> Iterator[StoredDisk]:
    """Hold a disk of a point open. Raises: `NotFound`, `Busy`; `Corrupt` for what can be told without reading it."""
    disk = next((disk for disk in point.disks if disk.key == key), None)
    if disk is None:
        raise NotFound(f"restore point {point.machine}@{point.id[:8]} has no disk {key}")
    directory = point_directory(root, point)
    with ExitStack() as stack:
        layers = held_layers(stack, directory / image_name(disk))
        digest = text(disk.content, "sums", r"[0-9a-f]{64}")
        of = Sums(directory / sums_name(disk), disk.size, digest)
        stack.callback(of.close)
        opened = StoredDisk(host, sockets, point, disk, layers, of)
        stack.callback(opened.close)
        yield opened
