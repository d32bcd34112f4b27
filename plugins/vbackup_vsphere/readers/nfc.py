"""Reads a disk as vSphere exports it (ExportSnapshot): any datastore, any chain of snapshots, always all of it."""

from __future__ import annotations

import hashlib
import logging
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from pyVmomi import vim

from vbackup.api import Block, CaptureLost, Corrupt, Extent, NotFound, Range, Unavailable, Unsupported, VBackupError
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.lease import Lease, LeaseUrl
from vbackup_vsphere.readers.base import DiskReader, Frozen
from vbackup_vsphere.vmdk.reader import SupportsRead, read_stream

ATTEMPTS = 4
"""How often a download is begun."""
PAUSE = 2.0
"""Seconds before the second one; each further pause is twice as long."""

_log = logging.getLogger(__name__)
_DISKS = "config.hardware.device"


class Nfc:
    """The way ``nfc``. One lease is shared by all disks of a capture that are read at the same time."""

    name: ClassVar[str] = "nfc"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[tuple[int, str], _Shared] = {}

    def why_not(self, frozen: Frozen, disk: VmDisk) -> str | None:
        """See `Way.why_not`."""
        del frozen
        return "it is encrypted, and vSphere exports no such disk" if disk.is_encrypted else None

    @contextmanager
    def open(self, frozen: Frozen, disk: VmDisk) -> Iterator[DiskReader]:
        """See `Way.open`."""
        place = (id(frozen.session), frozen.snapshot)
        with self._lock:
            shared = self._shared.setdefault(place, _Shared(frozen))
            shared.users += 1
        try:
            yield NfcReader(frozen, disk, shared)
        except BaseException:
            shared.failed = True
            raise
        finally:
            with self._lock:
                shared.users -= 1
                last = not shared.users
                if last:
                    del self._shared[place]
            if last:
                shared.close()


class _Shared:
    """The lease of a snapshot, made when the first disk needs it and ended with the last."""

    def __init__(self, frozen: Frozen) -> None:
        self.users = 0
        self.failed = False
        self._frozen = frozen
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._devices: list[Any] = []

    def lease(self) -> tuple[Lease, list[Any]]:
        """Return the lease and the snapshot's devices. Raises: `Unsupported` when it cannot be exported."""
        with self._lock:
            if self._lease is None:
                session, what = self._frozen.session, f"exporting {self._frozen.machine}"
                snapshot = session.object(vim.vm.Snapshot, self._frozen.snapshot)
                self._devices = list(session.get(snapshot, _DISKS).get(_DISKS) or ())
                # No `repeat`: after a cut connection there may be a lease that we do not know. It ends by itself.
                lease = Lease(session, session.call(what, snapshot.ExportSnapshot), what)
                lease.__enter__()
                self._lease = lease
            return self._lease, self._devices

    def close(self) -> None:
        """End the lease. All that was read was checked by then, so its failing to end well loses nothing."""
        if self._lease is None:
            return
        try:
            if self.failed:
                self._lease.abort()
            else:
                self._lease.complete()
        except VBackupError as error:
            _log.warning("%s", error)


class NfcReader:
    """A `DiskReader` of the stream that a lease gives."""

    is_sequential = True

    def __init__(self, frozen: Frozen, disk: VmDisk, shared: _Shared) -> None:
        self._frozen = frozen
        self._disk = disk
        self._what = f"disk {disk.key} of {frozen.machine}"
        self._lease, devices = shared.lease()
        self._url = find_url(self._lease.urls, devices, disk, self._what)

    def extents(self) -> Iterator[Extent] | None:
        """See `DiskReader.extents`."""
        return None

    def read(self, ranges: Iterable[Range]) -> Iterator[Block]:
        """See `DiskReader.read`. To the end of the stream, whatever was asked for: only there all of it is proven."""
        blocks = self._blocks()
        current: Block | None = None
        for offset, length in ranges:
            buffer, end = bytearray(length), offset + length
            while current is None or current.offset < end:
                if current is not None:
                    _copy(current, buffer, offset)
                    if current.offset + len(current.data) > end:
                        break
                current = next(blocks, None)
                if current is None:
                    current = Block(self._disk.size, b"")
            yield Block(offset, buffer)
        for _ in blocks:
            pass

    def _blocks(self) -> Iterator[Block]:
        """Yield the stream's blocks. One that was cut is begun anew, and what was yielded held against it."""
        seen = _Seen(0, 0)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                again = _Seen(0, 0)
                for block in self._download():
                    again = again.and_then(block)
                    if again.blocks > seen.blocks:
                        seen = again
                        yield block
                    elif again.blocks == seen.blocks and again != seen:
                        raise Corrupt(f"{self._what}: vSphere exports other bytes than a moment ago")
            except NotFound as error:  # a lease that has ended has no files
                raise CaptureLost(f"{self._what}: the export is gone: {error.message}") from error
            except Unavailable as error:
                self._check_lease()
                if attempt == ATTEMPTS or not error.transient:
                    raise
                _log.warning("%s: beginning again: %s", self._what, error)
                self._lease.pause(PAUSE * 2 ** (attempt - 1))
                self._check_lease()
            else:
                if again.blocks < seen.blocks:
                    raise Corrupt(f"{self._what}: vSphere exports less than a moment ago")
                return

    def _check_lease(self) -> None:
        lost = self._lease.lost
        if lost is not None:
            raise CaptureLost(f"{self._what}: the lease was lost: {lost.message}") from lost

    def _download(self) -> Iterator[Block]:
        with self._frozen.session.open("GET", self._url.url, thumbprint=self._url.thumbprint) as answer:
            stream = _Hashing(answer)
            for block in read_stream(stream, self._disk.size, self._what):
                self._lease.progress(100 * block.offset // self._disk.size)
                yield block
        self._check_manifest(stream)

    def _check_manifest(self, stream: _Hashing) -> None:
        try:
            entries = [e for e in self._lease.manifest() if e.key in {self._url.key, self._url.target}]
        except VBackupError as error:
            _log.info("%s", error)  # not every ESXi makes one, and the stream has checksums of its own
            return
        sums = {(entry.sha1.lower(), entry.size) for entry in entries if entry.sha1}
        if sums and (stream.digest, stream.size) not in sums:
            raise Corrupt(f"{self._what}: what came is not what vSphere's manifest says it sent")


class _Seen(NamedTuple):
    """What was yielded of a stream: the count of blocks and their checksum."""

    blocks: int
    checksum: int

    def and_then(self, block: Block) -> _Seen:
        return _Seen(self.blocks + 1, zlib.crc32(block.data, self.checksum ^ zlib.crc32(b"%d" % block.offset)))


class _Hashing:
    """Hashes what is read."""

    def __init__(self, stream: SupportsRead) -> None:
        self._stream = stream
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self.size = 0

    @property
    def digest(self) -> str:
        return self._sha1.hexdigest()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._sha1.update(data)
        self.size += len(data)
        return data


def _copy(block: Block, buffer: bytearray, offset: int) -> None:
    """Copy what ``block`` has of the range that begins at ``offset``."""
    start, end = max(block.offset, offset), min(block.offset + len(block.data), offset + len(buffer))
    if start < end:
        buffer[start - offset : end - offset] = memoryview(block.data)[start - block.offset : end - block.offset]


def find_url(urls: Iterable[LeaseUrl], devices: list[Any], disk: VmDisk, what: str) -> LeaseUrl:
    """Return which of a lease's URLs is a disk's.

    Their keys end in the controller's type and number and the disk's unit. Where they do not, they are taken to be in
    the order of the machine's disks, and only for a disk whose size no other has: the stream's header tells its size,
    so that a wrong one is refused. Raises: `Unsupported` when it cannot be told.
    """
    found = [url for url in urls if url.is_disk]
    disks = [device for device in devices if isinstance(device, vim.vm.device.VirtualDisk)]
    controllers = {d.key: d for d in devices if isinstance(d, vim.vm.device.VirtualController)}
    mine = next((d for d in disks if d.key == disk.device), None)
    if mine is not None and mine.controllerKey in controllers:
        controller = controllers[mine.controllerKey]
        kind = type(controller).__name__.rpartition(".")[2]
        ending = f"/{kind}{controller.busNumber}:{mine.unitNumber}"
        named = [url for url in found if url.key.endswith(ending)]
        if len(named) == 1:
            return named[0]
    alike = [d for d in disks if d.capacityInBytes == disk.size]
    if mine is not None and len(disks) == len(found) and len(alike) == 1:
        return found[disks.index(mine)]
    raise Unsupported(f"{what}: vSphere's export does not tell which of its disks this is")
