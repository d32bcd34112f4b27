"""A new qcow2 image on this machine, written without a server, in one pass.

Format: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt, version 3, clusters of 64 KiB, no
features. Clusters are appended as they come: a level 2 table, which is written when the disk is past it, and the data
that it tells of, so what lies together on the disk does so in the file. The level 1 table, the refcounts and at last
the header are written when all is there. What has no cluster reads as zeros.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

from vbackup.api import Buffer, Run
from vbackup_qemu.host import translated
from vbackup_qemu.rawfile import opened, write_parts, written_together

_CLUSTER = 1 << 16
_SECTOR = 512
"""Disks of QEMU end with one."""
_BITS = 16
_ENTRIES = _CLUSTER // 8
"""Of a table that fills a cluster."""
_COUNTS = _CLUSTER // 2
"""Refcounts, of 16 bits, in a cluster."""
_COPIED = 1 << 63
"""In an entry: its cluster is used once."""
_SPAN = _CLUSTER * _ENTRIES
"""Bytes of the disk that a level 2 table tells of."""
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII8x")


def write(path: Path, size: int, runs: Iterable[Run], label: str) -> None:
    """Fill the file at ``path`` with an image of ``size`` bytes. Raises: `NoSpace`, `AccessDenied`, `Unavailable`."""
    what = f"{label}: writing {path}"
    with opened(path, os.O_WRONLY | os.O_TRUNC, what) as descriptor:
        image = _Image(descriptor, -(-size // _SECTOR) * _SECTOR, what)
        for offset, parts in written_together(_cut(runs), _SPAN):
            image.data(offset, parts)
        image.finish()


class _Image:
    """An image being written, in ascending order."""

    def __init__(self, descriptor: int, size: int, what: str) -> None:
        self._descriptor = descriptor
        self._size = size
        self._what = what
        self._end = 1  # clusters of the file; the first one is for the header
        self._level1 = array("Q", bytes(8 * -(-size // _SPAN)))
        self._level2 = array("Q", bytes(_CLUSTER))
        self._table = -1  # the number of that level 2 table

    def data(self, offset: int, parts: list[Buffer]) -> None:
        """Write data of one level 2 table. It may begin in the cluster that was appended last."""
        length = sum(len(part) for part in parts)
        first, last = offset // _CLUSTER, (offset + length - 1) // _CLUSTER
        host = self._place(first) * _CLUSTER + offset % _CLUSTER
        for cluster in range(first + 1, last + 1):
            self._place(cluster)  # follows the one before in the file
        self._write(host, parts)

    def _place(self, cluster: int) -> int:
        """Return where a cluster of the disk is in the file."""
        table, entry = divmod(cluster, _ENTRIES)
        if table != self._table:
            self._close_table()
            self._table = table
            self._level1[table] = self._append(1) * _CLUSTER | _COPIED
        if not self._level2[entry]:
            self._level2[entry] = self._append(1) * _CLUSTER | _COPIED
        return (self._level2[entry] & ~_COPIED) // _CLUSTER

    def _close_table(self) -> None:
        if self._table >= 0:
            self._write(self._level1[self._table] & ~_COPIED, [_encoded(self._level2)])
            self._level2 = array("Q", bytes(_CLUSTER))

    def finish(self) -> None:
        """Write what tells where all is."""
        self._close_table()
        level1 = self._store(self._level1) if self._level1 else 0
        blocks = table = 0
        while blocks * _COUNTS < self._end + blocks + table:  # they count themselves, too
            blocks += 1
            table = -(-8 * blocks // _CLUSTER)
        clusters = self._end + blocks + table
        first = self._append(blocks)
        for number in range(blocks):
            counts = min(_COUNTS, clusters - number * _COUNTS)
            self._write((first + number) * _CLUSTER, [(b"\0\1" * counts).ljust(_CLUSTER, b"\0")])
        places = array("Q", range(first * _CLUSTER, (first + blocks) * _CLUSTER, _CLUSTER))
        refcounts = self._store(places)
        self._write(0, [self._header(level1, refcounts, table).ljust(_CLUSTER, b"\0")])

    def _header(self, level1: int, refcounts: int, table: int) -> bytes:
        return _HEADER.pack(
            b"QFI\xfb", 3, 0, 0, _BITS, self._size, 0, len(self._level1), level1 * _CLUSTER,
            refcounts * _CLUSTER, table, 0, 0, 0, 0, 0, 4, _HEADER.size,
        )  # fmt: skip

    def _store(self, table: array[int]) -> int:
        """Append a table and return its first cluster."""
        data = _encoded(table)
        place = self._append(len(data) // _CLUSTER)
        self._write(place * _CLUSTER, [data])
        return place

    def _append(self, clusters: int) -> int:
        place = self._end
        self._end += clusters
        return place

    def _write(self, offset: int, parts: list[Buffer]) -> None:
        with translated(self._what):
            write_parts(self._descriptor, parts, offset)


def _cut(runs: Iterable[Run]) -> Iterator[Run]:
    """Cut data where a level 2 table ends."""
    for run in runs:
        if run.data is None or run.offset // _SPAN == (run.offset + run.length - 1) // _SPAN:
            yield run
            continue
        at, view = run.offset, memoryview(run.data)
        while view:
            length = min(len(view), _SPAN - at % _SPAN)
            yield Run(at, length, view[:length])
            at, view = at + length, view[length:]


def _encoded(table: array[int]) -> bytes:
    """Return a table as it is in the file: big-endian, in whole clusters."""
    copy = array("Q", table)
    if sys.byteorder == "little":
        copy.byteswap()
    return copy.tobytes().ljust(-(-8 * len(table) // _CLUSTER) * _CLUSTER, b"\0")
