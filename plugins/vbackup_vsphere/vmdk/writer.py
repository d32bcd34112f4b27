"""Writes a streamOptimized VMDK from its first byte to its last, as an import of vSphere takes it."""

from __future__ import annotations

import os
import zlib
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from vbackup.api import PluginError, Run, Unsupported
from vbackup_vsphere.vmdk.format import (
    AT_END,
    GRAIN_SECTORS,
    MAX_CAPACITY,
    SECTOR,
    TABLE_ENTRIES,
    Header,
    MarkerKind,
    descriptor,
    pack_grain,
    pack_marker,
    whole_sectors,
)
from vbackup_vsphere.vmdk.tables import POSITIONS, TABLE_SIZE, new_table, pack

GRAIN = GRAIN_SECTORS * SECTOR
_ZEROS = bytes(GRAIN)
_BATCH = 16
"""Grains that one thread deflates at once."""
_OVERHEAD = 128  # ESXi's own streams begin their grains there

Grain = tuple[int, bytes]
"""Its number and its bytes."""


def write_stream(runs: Iterable[Run], capacity: int, *, level: int) -> Generator[bytes, None, None]:
    """Yield a stream for a disk of ``capacity`` bytes; ``runs`` ascend and cover it exactly, see `SinkDisk.write`.

    Zeros, told or found, are left out. ``level`` is zlib's, 0 to 9. Deflating is done by threads that end with the
    iterator. In a stream of more than 2 TiB the tables, whose entries have 32 bits, cannot tell where the grains
    behind that are; who reads a stream from its start, as an import does, reads markers and needs no tables.

    Raises: `Unsupported` for a capacity that no VMDK has, `PluginError` unless ``runs`` cover the disk.
    """
    if capacity <= 0 or capacity % SECTOR or capacity > MAX_CAPACITY:
        raise Unsupported(f"a VMDK cannot be of {capacity} bytes", hint="sizes are multiples of 512 bytes, to 64 TiB")
    stream = _Stream(Header(capacity // SECTOR, AT_END, _OVERHEAD))
    yield stream.front()
    for batch in _deflated(_batches(_grains(runs, capacity)), level):
        yield stream.grains(batch)
    yield stream.back()


class _Stream:
    """Knows what was written and where."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._sector = 0
        self._directory = array("I", bytes(4 * header.tables))
        self._number = -1
        self._table = new_table()

    def front(self) -> bytes:
        front = self._header.pack() + descriptor(self._header.capacity)
        self._sector = _OVERHEAD
        return front.ljust(_OVERHEAD * SECTOR, b"\0")

    def grains(self, batch: list[Grain]) -> bytes:
        parts: list[bytes] = []
        for index, deflated in batch:
            number, slot = divmod(index, TABLE_ENTRIES)
            if number != self._number:
                parts.append(self._end_table())
                self._number = number
            self._table[slot] = self._sector % POSITIONS
            parts.append(self._wrote(pack_grain(index * GRAIN_SECTORS, deflated)))
        return b"".join(parts)

    def back(self) -> bytes:
        tables = self._end_table()
        directory = whole_sectors(pack(self._directory))
        marker = self._wrote(pack_marker(MarkerKind.DIRECTORY, len(directory) // SECTOR))
        footer = replace(self._header, directory=self._sector)
        end = pack_marker(MarkerKind.FOOTER, 1) + footer.pack() + pack_marker(MarkerKind.END, 0)
        return tables + marker + directory + end

    def _end_table(self) -> bytes:
        if self._number < 0:
            return b""
        marker = self._wrote(pack_marker(MarkerKind.TABLE, TABLE_SIZE // SECTOR))
        self._directory[self._number] = self._sector % POSITIONS
        table = self._wrote(pack(self._table))
        self._table = new_table()
        return marker + table

    def _wrote(self, data: bytes) -> bytes:
        self._sector += len(data) // SECTOR
        return data


def _grains(runs: Iterable[Run], capacity: int) -> Iterator[Grain]:
    """Cut runs into grains that hold anything but zeros; the last one is filled with zeros."""
    position, grain = 0, bytearray()  # what began in the middle of a grain; empty: it was all zeros so far
    for offset, length, data in runs:
        if offset != position or length <= 0 or offset + length > capacity:
            raise PluginError(f"the run {offset}+{length} does not continue at {position} of {capacity} bytes")
        view = None if data is None else memoryview(data).cast("B")
        end = offset + length
        while position < end:
            if view is None and not grain:
                position = end
                break
            within = position % GRAIN
            stop = min(end, position - within + GRAIN)
            if view is not None:
                grain += bytes(within - len(grain))  # zeros that were passed over
                grain += view[position - offset : stop - offset]
            position = stop
            if position % GRAIN == 0:
                yield from _grain(position // GRAIN - 1, grain)
                grain = bytearray()
    if position != capacity:
        raise PluginError(f"the runs end at {position} of {capacity} bytes")
    if grain:
        yield from _grain(position // GRAIN, grain)


def _grain(index: int, data: bytearray) -> Iterator[Grain]:
    whole = bytes(data.ljust(GRAIN, b"\0"))
    if whole != _ZEROS:
        yield index, whole


def _batches(grains: Iterator[Grain]) -> Iterator[list[Grain]]:
    batch: list[Grain] = []
    for grain in grains:
        batch.append(grain)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _deflated(batches: Iterator[list[Grain]], level: int) -> Iterator[list[Grain]]:
    """Deflate batches on threads (zlib lets go of the interpreter), in order, a few of them at a time."""

    def deflate(batch: list[Grain]) -> list[Grain]:
        return [(index, zlib.compress(data, level)) for index, data in batch]

    threads = min(4, os.cpu_count() or 1)
    waiting: deque[Future[list[Grain]]] = deque()
    with ThreadPoolExecutor(threads, "vmdk") as pool:
        for batch in batches:
            waiting.append(pool.submit(deflate, batch))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
