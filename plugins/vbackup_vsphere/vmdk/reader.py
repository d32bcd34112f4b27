"""Reads a streamOptimized VMDK as it comes, and believes nothing of it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from vbackup.api import Block, Corrupt, Unavailable
from vbackup_vsphere.vmdk.format import (
    AT_END,
    GRAIN_DATA,
    SECTOR,
    Header,
    MarkerKind,
    parse_header,
    parse_marker,
)
from vbackup_vsphere.vmdk.tables import TABLE_SIZE, Tables, directory_size

BLOCK = 1 << 20
"""Neighbouring grains are joined up to this many bytes."""
_CHUNK = 256 << 10
_SKIP = 1 << 20


class SupportsRead(Protocol):
    """Where a stream comes from; `read` returns some bytes, or none at the end."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""


def read_stream(stream: SupportsRead, capacity: int | None, what: str) -> Iterator[Block]:
    """Yield what a stream holds, ascending, in blocks of at most `BLOCK` bytes; what is left out is zeros.

    Takes true streams, with the directory at the end, as vSphere sends them, and those of qemu-img, with the tables
    in front. ``capacity`` in bytes is what it must be for, ``what`` begins messages. Nothing must be kept of what was
    yielded unless this comes to its end: where grains belong is only proven by the tables behind them.

    Raises: `Unavailable` when it ends too early, `Corrupt` when it is not as it must be, `Unsupported` when it is a
    VMDK of another kind; what ``stream`` raises.
    """
    source = _Source(stream, what)
    header = parse_header(source.take(SECTOR), what)
    if capacity is not None and header.capacity * SECTOR != capacity:
        raise Corrupt(f"{what}: the stream is of a disk of {header.capacity * SECTOR} bytes, not {capacity}")
    yield from _joined(_Reader(source, header, what).grains())


class _Source:
    """A stream of which exact counts are taken."""

    def __init__(self, stream: SupportsRead, what: str) -> None:
        self._stream = stream
        self._what = what
        self._buffer = b""
        self._start = 0  # what is before it in the buffer has been taken
        self.position = 0
        self.may_end_short = False
        """Whether the last sector may be cut: qemu-img does not fill it."""

    def is_at_end(self) -> bool:
        """Whether nothing follows."""
        return self._have(1) == 0

    def take(self, size: int) -> bytes:
        """Return exactly ``size`` bytes. Raises: `Unavailable` at the end."""
        have = min(self._have(size), size)
        data = self._buffer[self._start : self._start + have]
        self._start += have
        self.position += size
        if have == size:
            return data
        if self.may_end_short and size - have < SECTOR:
            return data + bytes(size - have)
        raise Unavailable(f"{self._what}: the stream ends early, at byte {self.position - size + have}")

    def skip_to(self, position: int) -> None:
        """Go on at a position in bytes."""
        if position < self.position:
            raise Corrupt(f"{self._what}: its parts are not in order")
        while self.position < position:
            self.take(min(_SKIP, position - self.position))

    def skip_zeros(self) -> None:
        """Go on behind zeros, by whole sectors."""
        while not self.is_at_end() and not any(self._buffer[self._start : self._start + SECTOR]):
            self.take(SECTOR)

    def _have(self, size: int) -> int:
        have = len(self._buffer) - self._start
        if have >= size:
            return have
        parts = [self._buffer[self._start :]]
        while have < size:
            part = self._stream.read(max(_CHUNK, size - have))
            if not part:
                break
            parts.append(part)
            have += len(part)
        self._buffer, self._start = b"".join(parts), 0
        return have


class _Marker(NamedTuple):
    sector: int
    """Where in the stream it is."""
    value: int
    size: int
    kind: int
    start: bytes
    """Its whole sector."""


class _Reader:
    def __init__(self, source: _Source, header: Header, what: str) -> None:
        self._source = source
        self._header = header
        self._what = what
        self._tables = Tables(header, what)
        self._directory = 0  # its sector
        self._next = 0  # the first grain that may come

    def grains(self) -> Iterator[Block]:
        """Yield grains, then check that all have come."""
        in_front = self._header.directory != AT_END
        if in_front:
            self._read_front()
        self._source.skip_to(self._header.overhead * SECTOR)
        while not (in_front and self._source.is_at_end()):
            marker = self._marker()
            if marker.size:
                yield self._grain(marker)
            elif marker.kind == MarkerKind.TABLE:
                self._table(marker)
            elif marker.kind == MarkerKind.DIRECTORY:
                self._read_directory(marker)
            elif marker.kind == MarkerKind.FOOTER and not in_front:
                self._footer(marker)
                break
            elif marker.kind == MarkerKind.END and in_front:
                self._source.skip_zeros()  # qemu-img leaves room for a whole grain at the end
                break
            else:
                raise Corrupt(f"{self._what}: a marker of kind {marker.kind} in sector {marker.sector}")
        if not self._source.is_at_end():
            raise Corrupt(f"{self._what}: something follows the end of the stream")
        self._tables.check()

    def _read_front(self) -> None:
        self._source.may_end_short = True
        self._source.skip_to(self._header.directory * SECTOR)
        directory = self._tables.set_directory(self._source.take(directory_size(self._header)))
        for sector in sorted(directory):
            if sector >= self._header.overhead:
                raise Corrupt(f"{self._what}: a grain table in sector {sector}, behind the first grain")
            if sector:
                self._source.skip_to(sector * SECTOR)
                self._tables.add_table(sector, self._source.take(TABLE_SIZE))

    def _marker(self) -> _Marker:
        sector = self._source.position // SECTOR
        start = self._source.take(SECTOR)
        return _Marker(sector, *parse_marker(start), start)

    def _grain(self, marker: _Marker) -> Block:
        grain = self._header.grain
        index, rest = divmod(marker.value, grain)
        if rest or index < self._next or index >= self._header.grains:
            raise Corrupt(f"{self._what}: a grain at sector {marker.value} of the disk is out of place")
        if marker.size > 2 * grain * SECTOR:
            raise Corrupt(f"{self._what}: the grain at sector {marker.value} of the disk has {marker.size} bytes")
        self._next = index + 1
        end = GRAIN_DATA + marker.size
        more = -(-end // SECTOR) * SECTOR - SECTOR
        deflated = (marker.start + self._source.take(more))[GRAIN_DATA:end] if more else marker.start[GRAIN_DATA:end]
        length = min(grain, self._header.capacity - marker.value) * SECTOR
        plain = self._inflate(deflated, marker.value, length)
        self._tables.add_grain(index, marker.sector)
        return Block(marker.value * SECTOR, plain)

    def _inflate(self, deflated: bytes, lba: int, length: int) -> bytes:
        # The last grain of a disk may be a whole one; what is in it behind the disk's end is of no disk.
        most = self._header.grain * SECTOR
        inflater = zlib.decompressobj()
        try:
            plain = inflater.decompress(deflated, most + 1)  # never more: a few bytes can inflate to gigabytes
        except zlib.error as error:
            raise Corrupt(f"{self._what}: the grain at sector {lba} of the disk is damaged") from error
        if not inflater.eof or len(plain) not in {length, most}:
            raise Corrupt(f"{self._what}: the grain at sector {lba} of the disk does not hold {length} bytes")
        return plain[:length]

    def _table(self, marker: _Marker) -> None:
        self._expect(marker, TABLE_SIZE)
        self._tables.add_table(marker.sector + 1, self._source.take(TABLE_SIZE))

    def _read_directory(self, marker: _Marker) -> None:
        size = directory_size(self._header)
        self._expect(marker, size)
        self._directory = marker.sector + 1
        self._tables.set_directory(self._source.take(size))

    def _footer(self, marker: _Marker) -> None:
        self._expect(marker, SECTOR)
        footer = parse_header(self._source.take(SECTOR), self._what)
        told = (footer.capacity, footer.grain, footer.directory)
        if told != (self._header.capacity, self._header.grain, self._directory):
            raise Corrupt(f"{self._what}: its footer tells of another disk than its header")
        end = self._marker()
        if (end.value, end.size, end.kind) != (0, 0, MarkerKind.END):
            raise Corrupt(f"{self._what}: there is no end of the stream behind the footer")

    def _expect(self, marker: _Marker, size: int) -> None:
        if marker.value * SECTOR != size:
            raise Corrupt(f"{self._what}: {marker.value} sectors in sector {marker.sector}, not {size // SECTOR}")


def _joined(grains: Iterator[Block]) -> Iterator[Block]:
    start, parts, length = 0, list[bytes](), 0
    for offset, data in grains:
        if parts and (offset != start + length or length + len(data) > BLOCK):
            yield Block(start, b"".join(parts))
            parts = []
        if not parts:
            start, length = offset, 0
        parts.append(bytes(data))
        length += len(data)
    if parts:
        yield Block(start, b"".join(parts))
