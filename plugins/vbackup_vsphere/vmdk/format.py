"""The parts that a streamOptimized VMDK is made of.

Source: VMware, "Virtual Disk Format 5.0", sections "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse
Extents". All numbers are little-endian, positions and lengths are in sectors of 512 bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from vbackup.api import Corrupt, Unsupported

SECTOR = 512
GRAIN_SECTORS = 128
"""Sectors of a grain, as ESXi has them; what is compressed at once."""
TABLE_ENTRIES = 512
"""Grains of one grain table."""
AT_END = (1 << 64) - 1
"""In place of the directory's position: it follows, and the footer tells where."""
MAX_CAPACITY = 64 << 40
"""Bytes; the largest disk of vSphere 8 is 62 TiB (configuration maximums)."""

_HEADER = struct.Struct("<4sII QQQQ I QQQ B 4s H")
_MARKER = struct.Struct("<QI")
_KIND = struct.Struct("<I")
_MAGIC = b"KDMV"
_LINE_ENDS = b"\n \r\n"  # what a transfer as text would have changed
_FLAG_LINE_ENDS = 1 << 0
_FLAG_COMPRESSED = 1 << 16
_FLAG_MARKERS = 1 << 17
_NEEDED = _FLAG_COMPRESSED | _FLAG_MARKERS
_DEFLATE = 1
_VERSIONS = (1, 2, 3)
_MAX_GRAIN_SECTORS = 2048
_MAX_OVERHEAD = 1 << 22
"""Sectors in front of the grains: the tables of the largest disk, twice, are fewer."""


class MarkerKind(IntEnum):
    """What follows a marker that is not a grain's."""

    END = 0
    TABLE = 1
    DIRECTORY = 2
    FOOTER = 3


@dataclass(frozen=True, slots=True)
class Header:
    """The first sector of a stream, and its footer. Positions and lengths in sectors."""

    capacity: int
    directory: int
    """Where the grain directory is, or `AT_END`."""
    overhead: int
    """Where the first grain is."""
    grain: int = GRAIN_SECTORS
    version: int = 3
    descriptor: int = 1
    descriptor_size: int = 20
    second_directory: int = 0
    flags: int = _NEEDED | _FLAG_LINE_ENDS

    @property
    def grains(self) -> int:
        """How many grains the disk has."""
        return -(-self.capacity // self.grain)

    @property
    def tables(self) -> int:
        """How many grain tables the disk has."""
        return -(-self.grains // TABLE_ENTRIES)

    def pack(self) -> bytes:
        """Return the sector."""
        packed = _HEADER.pack(
            _MAGIC,
            self.version,
            self.flags,
            self.capacity,
            self.grain,
            self.descriptor,
            self.descriptor_size,
            TABLE_ENTRIES,
            self.second_directory,
            self.directory,
            self.overhead,
            0,
            _LINE_ENDS,
            _DEFLATE,
        )
        return packed.ljust(SECTOR, b"\0")


def parse_header(sector: bytes, what: str) -> Header:
    """Return the header (or footer) in a sector, all of it checked; ``what`` begins messages.

    Raises: `Corrupt`; `Unsupported` for a VMDK of another kind.
    """
    (
        magic,
        version,
        flags,
        capacity,
        grain,
        descriptor,
        descriptor_size,
        entries,
        second,
        directory,
        overhead,
        _,
        ends,
        how,
    ) = _HEADER.unpack_from(sector)
    if magic != _MAGIC or (flags & _FLAG_LINE_ENDS and ends != _LINE_ENDS):
        raise Corrupt(f"{what}: this is no VMDK stream")
    if version not in _VERSIONS:
        raise Unsupported(f"{what}: version {version} of the VMDK format is not known")
    if flags & _NEEDED != _NEEDED or how != _DEFLATE:
        raise Unsupported(f"{what}: the VMDK is not stream-optimized")
    if grain < 8 or grain > _MAX_GRAIN_SECTORS or grain & (grain - 1):  # the specification: a power of 2 above 8 KiB
        raise Corrupt(f"{what}: grains of {grain} sectors")
    if entries != TABLE_ENTRIES:
        raise Corrupt(f"{what}: grain tables of {entries} entries")
    if not 0 < capacity <= MAX_CAPACITY // SECTOR:
        raise Corrupt(f"{what}: a capacity of {capacity} sectors")
    if not max(1, descriptor + descriptor_size) <= overhead <= _MAX_OVERHEAD:
        raise Corrupt(f"{what}: its grains begin in sector {overhead}")
    return Header(capacity, directory, overhead, grain, version, descriptor, descriptor_size, second, flags)


def pack_grain(lba: int, deflated: bytes) -> bytes:
    """Return a grain with its marker, in whole sectors. ``lba`` is the sector of the disk that it begins at."""
    return whole_sectors(_MARKER.pack(lba, len(deflated)) + deflated)


def pack_marker(kind: MarkerKind, sectors: int) -> bytes:
    """Return the marker of what takes ``sectors`` sectors behind it."""
    return (_MARKER.pack(sectors, 0) + _KIND.pack(kind)).ljust(SECTOR, b"\0")


def parse_marker(sector: bytes) -> tuple[int, int, int]:
    """Return (sector of the disk or count of sectors, deflated size, kind); the kind counts where the size is 0."""
    value, size = _MARKER.unpack_from(sector)
    (kind,) = _KIND.unpack_from(sector, GRAIN_DATA)
    return value, size, kind


GRAIN_DATA = _MARKER.size
"""Where a grain's deflated bytes begin behind the start of its marker."""


def whole_sectors(data: bytes) -> bytes:
    """Return ``data`` with zeros up to the next sector."""
    return data + bytes(-len(data) % SECTOR)


def descriptor(capacity: int) -> bytes:
    """Return the descriptor of a stream, which tells people and QEMU what it is; ``capacity`` in sectors."""
    cylinders = min(max(capacity // (255 * 63), 1), 65535)
    lines = (
        "# Disk DescriptorFile",
        "version=1",
        "CID=fffffffe",
        "parentCID=ffffffff",
        'createType="streamOptimized"',
        "",
        "# Extent description",
        f'RW {capacity} SPARSE "disk.vmdk"',
        "",
        "# The Disk Data Base",
        "#DDB",
        'ddb.adapterType = "lsilogic"',
        f'ddb.geometry.cylinders = "{cylinders}"',
        'ddb.geometry.heads = "255"',
        'ddb.geometry.sectors = "63"',
        'ddb.virtualHWVersion = "13"',
        "",
    )
    return "\n".join(lines).encode()
