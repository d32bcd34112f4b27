"""The grain directory and tables of a stream, held against the grains that came.

Grains carry no checksum of where on the disk they belong, and a grain that is missing leaves no gap in the stream:
only the tables show both. Of each table a checksum is kept, so memory is small however large the disk is.
"""

from __future__ import annotations

import sys
import zlib
from array import array

from vbackup.api import Corrupt
from vbackup_vsphere.vmdk.format import SECTOR, TABLE_ENTRIES, Header

TABLE_SIZE = TABLE_ENTRIES * 4
POSITIONS = 1 << 32
"""Entries have 32 bits: what lies behind this sector cannot be told by them."""
_ZEROED = 1  # an entry that says "zeros, whatever the parent has"


def pack(entries: array[int]) -> bytes:
    """Return entries of a table or directory as they are stored."""
    if sys.byteorder == "big":
        entries = array("I", entries)
        entries.byteswap()
    return entries.tobytes()


def unpack(data: bytes) -> array[int]:
    """Return the entries of a table or directory."""
    entries = array("I", data)
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def new_table() -> array[int]:
    """Return a table without grains."""
    return array("I", bytes(TABLE_SIZE))


def directory_size(header: Header) -> int:
    """Return the bytes of a grain directory, in whole sectors."""
    return -(-header.tables * 4 // SECTOR) * SECTOR


class Tables:
    """Collects grains, tables and the directory, in whatever order they come; `check` compares them."""

    def __init__(self, header: Header, what: str) -> None:
        self._header = header
        self._what = what
        self._grains: dict[int, int] = {}  # table's number -> checksum of the table as its grains came
        self._tables: dict[int, int] = {}  # sector -> checksum of the table that is there
        self._directory: array[int] | None = None
        self._number = -1
        self._entries = new_table()
        self._long = False

    def add_grain(self, index: int, sector: int) -> None:
        """A grain was in ``sector`` of the stream. Indices must ascend."""
        number, slot = divmod(index, TABLE_ENTRIES)
        if number != self._number:
            self._end_table()
            self._number = number
        self._entries[slot] = sector % POSITIONS
        self._long = self._long or sector >= POSITIONS

    def add_table(self, sector: int, data: bytes) -> None:
        """A table was in ``sector``."""
        entries = unpack(data)
        if _ZEROED in entries:
            entries = array("I", (0 if entry == _ZEROED else entry for entry in entries))
        if len(self._tables) >= self._header.tables:
            raise Corrupt(f"{self._what}: more grain tables than the disk has")
        self._tables[sector] = zlib.crc32(entries)

    def set_directory(self, data: bytes) -> array[int]:
        """The directory has come; return its entries: the sectors of tables, 0 where a table has no grain."""
        if self._directory is not None:
            raise Corrupt(f"{self._what}: it has two grain directories")
        self._directory = unpack(data)[: self._header.tables]
        return self._directory

    def check(self) -> None:
        """Raise `Corrupt` unless the tables name exactly the grains that came."""
        self._end_table()
        if self._directory is None:
            raise Corrupt(f"{self._what}: it has no grain directory")
        if self._long:
            return
        empty = zlib.crc32(new_table())
        for number, sector in enumerate(self._directory):
            told = self._tables.get(sector) if sector else empty
            if told != self._grains.get(number, empty):
                raise Corrupt(f"{self._what}: its grains are not those that grain table {number} tells of")

    def _end_table(self) -> None:
        if self._number >= 0:
            self._grains[self._number] = zlib.crc32(self._entries)
            self._entries = new_table()
