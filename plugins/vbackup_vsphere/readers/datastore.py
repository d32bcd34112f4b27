"""Reads a flat disk over HTTPS by ranges, from the files of its datastore (``/folder``): no software of VMware needed.

Source: VMware, "vSphere Web Services SDK Programming Guide", "HTTP access to vSphere server files"; nbdkit's and
virt-v2v's way, too. Only a base disk of a VMFS or NFS datastore is a flat file whose bytes are the disk's.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar, Self

from vbackup.api import Block, CaptureLost, Extent, NotFound, Range, Unavailable, Unsupported
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.readers.base import DiskReader, Frozen
from vbackup_vsphere.readers.descriptor import MAX_DESCRIPTOR, extent_file
from vbackup_vsphere.readers.files import DatastoreFile, split_path
from vbackup_vsphere.session import Session
from vbackup_vsphere.web import Answer

CONNECTIONS = 4
"""Requests under way at once for one disk."""
REQUEST = 4 << 20
"""Bytes of one request: neighbouring ranges are joined up to this."""
ATTEMPTS = 6
"""How often a request is sent without a single byte coming of it."""
PAUSE = 1.0
"""Seconds before the second one; each further pause is twice as long."""

_FLAT = ("VMFS", "NFS", "NFS41")
_AHEAD = CONNECTIONS + 2  # requests whose bytes are held in memory
_PARTIAL = 206

_log = logging.getLogger(__name__)


class Datastore:
    """The way ``datastore``."""

    name: ClassVar[str] = "datastore"

    def why_not(self, frozen: Frozen, disk: VmDisk) -> str | None:
        """See `Way.why_not`."""
        del frozen
        if disk.is_encrypted:
            return "it is encrypted, and its file is the ciphertext"
        if disk.has_parent:
            return "it is a chain of snapshots, which no single file holds"
        if disk.datastore_type.upper() not in _FLAT:
            return f"its datastore is {disk.datastore_type}, which has no flat files"
        return None

    @contextmanager
    def open(self, frozen: Frozen, disk: VmDisk) -> Iterator[DiskReader]:
        """See `Way.open`."""
        what = f"disk {disk.key} of {frozen.machine}"
        file = _flat_file(frozen, disk, what)
        with Requests(frozen.session, file, disk.size, what) as requests:
            yield DatastoreReader(requests)


def _flat_file(frozen: Frozen, disk: VmDisk, what: str) -> DatastoreFile:
    """Return the file that has the disk's bytes: the one its descriptor names. Raises: `Unsupported`."""
    descriptor = split_path(disk.file, frozen.datacenter)
    try:
        with frozen.session.open("GET", descriptor.url()) as answer:
            text = answer.read(MAX_DESCRIPTOR + 1)
            while len(text) <= MAX_DESCRIPTOR and (more := answer.read(MAX_DESCRIPTOR + 1 - len(text))):
                text += more
        file = descriptor.beside(extent_file(text, disk.size))
        with frozen.session.open("HEAD", file.url()) as answer:
            length = answer.headers.get("Content-Length", "unknown")
    except NotFound as error:
        raise Unsupported(f"{what}: the host does not give its file: {error.message}") from error
    except Unsupported as error:
        raise Unsupported(f"{what}: {error.message}") from error
    if length != str(disk.size):
        raise Unsupported(f"{what}: its file has {length} bytes, the disk has {disk.size}")
    return file


class DatastoreReader:
    """A `DiskReader` with several requests in flight."""

    is_sequential = False

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def extents(self) -> Iterator[Extent] | None:
        """See `DiskReader.extents`."""
        return None

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `DiskReader.read`."""
        waiting: deque[tuple[list[Range], Future[bytearray]]] = deque()
        try:
            for joined in _joined(ranges):
                if len(waiting) == _AHEAD:
                    yield from _blocks(*waiting.popleft())
                waiting.append((joined, self._requests.submit(joined[0].offset, sum(r.length for r in joined))))
            while waiting:
                yield from _blocks(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()


def _joined(ranges: Iterable[Range]) -> Iterator[list[Range]]:
    """Gather neighbouring ranges for one request."""
    together: list[Range] = []
    end = length = 0
    for wanted in ranges:
        if together and (wanted.offset != end or length + wanted.length > REQUEST):
            yield together
            together, length = [], 0
        together.append(wanted)
        end, length = wanted.offset + wanted.length, length + wanted.length
    if together:
        yield together


def _blocks(ranges: list[Range], future: Future[bytearray]) -> Iterator[Block]:
    data = future.result()
    if len(ranges) == 1:
        yield Block(ranges[0].offset, data)
        return
    view, start = memoryview(data), ranges[0].offset
    for offset, length in ranges:
        yield Block(offset, view[offset - start : offset - start + length])


class Requests:
    """Threads that fetch ranges of one file. A context manager: after it nothing is under way."""

    def __init__(self, session: Session, file: DatastoreFile, size: int, what: str) -> None:
        self._session = session
        self._url = file.url()
        self._size = size
        self._what = what
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(CONNECTIONS, "datastore")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)

    def submit(self, offset: int, length: int) -> Future[bytearray]:
        """Begin to fetch a range."""
        return self._pool.submit(self._fetch, offset, length)

    def _fetch(self, offset: int, length: int) -> bytearray:
        """Return a range; a connection that is cut is resumed where it was."""
        data = bytearray(length)
        view, done, failures = memoryview(data), 0, 0
        while done < length:
            before = done
            try:
                for count in self._ask(offset + done, view[done:]):
                    done += count
            except Unavailable as error:
                failures = failures + 1 if done == before else 1
                if failures == ATTEMPTS or not error.transient or self._stopped.is_set():
                    raise
                _log.info("%s: at %d again: %s", self._what, offset + done, error)
                self._stopped.wait(error.retry_after or PAUSE * 2 ** (failures - 1))
            except NotFound as error:
                raise CaptureLost(f"{self._what}: its file is gone: {error.message}") from error
        return data

    def _ask(self, offset: int, view: memoryview) -> Iterator[int]:
        """Fill ``view`` with what is at ``offset``; yield how many bytes have come, each time some have."""
        last = offset + len(view) - 1
        with self._session.open("GET", self._url, headers={"Range": f"bytes={offset}-{last}"}) as answer:
            self._check(answer, offset, last)
            while view:
                if self._stopped.is_set():
                    raise CaptureLost(f"{self._what}: reading was stopped")
                count = answer.readinto(view)
                if not count:
                    raise Unavailable(f"{self._what}: the answer ended {len(view)} bytes early")
                yield count
                view = view[count:]
            answer.read(1)  # sees the end, so that the connection serves the next request

    def _check(self, answer: Answer, offset: int, last: int) -> None:
        told = answer.headers.get("Content-Range", "")
        if answer.status != _PARTIAL:
            raise Unavailable(
                f"{self._what}: the host answers {answer.status} to a request for a part of its file",
                hint="is a proxy in between? then leave `datastore` out of `read`",
                transient=False,
            )
        if told.replace(" ", "") != f"bytes{offset}-{last}/{self._size}":
            raise CaptureLost(f"{self._what}: asked for bytes {offset}-{last} of {self._size}, the host sends {told!r}")
