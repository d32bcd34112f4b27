"""Streams that are damaged, cut or made to harm: never wrong bytes without an error, never another error than ours."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbackup.api import Corrupt, Run, Unavailable, Unsupported, VBackupError
from vbackup_vsphere.vmdk.format import AT_END, SECTOR, Header, MarkerKind, descriptor, pack_grain, pack_marker
from vbackup_vsphere.vmdk.reader import read_stream
from vbackup_vsphere.vmdk.writer import GRAIN, write_stream

MIB = 1 << 20
SIZE = 34 * MIB  # two grain tables
_RNG = random.Random(5)
DATA = {0: _RNG.randbytes(3 * GRAIN), 5 * GRAIN: b"text " * 20_000, 33 * MIB: _RNG.randbytes(1000)}


def make_disk() -> bytes:
    disk = bytearray(SIZE)
    for offset, data in DATA.items():
        disk[offset : offset + len(data)] = data
    return bytes(disk)


DISK = make_disk()
STREAM = b"".join(write_stream([Run(0, SIZE, DISK)], SIZE, level=1))
OVERHEAD = 128 * SECTOR
FOOTER = len(STREAM) - 2 * SECTOR


GRAINS = {grain for grain in range(SIZE // GRAIN) if any(DISK[grain * GRAIN : (grain + 1) * GRAIN])}


def read(stream: bytes) -> None:
    """Read a stream to its end, and compare what it said with the disk."""
    blocks = list(read_stream(io.BytesIO(stream), SIZE, "disk 2000 of web1"))
    told: set[int] = set()
    for offset, data in blocks:
        assert DISK[offset : offset + len(data)] == data
        told.update(range(offset // GRAIN, (offset + len(data)) // GRAIN))
    assert told == GRAINS


def replaced(position: int, data: bytes) -> bytes:
    return STREAM[:position] + data + STREAM[position + len(data) :]


def made(*parts: bytes, header: Header | None = None) -> bytes:
    header = header or Header(SIZE // SECTOR, AT_END, 128)
    return (header.pack() + descriptor(header.capacity)).ljust(OVERHEAD, b"\0") + b"".join(parts)


def test_the_stream_is_whole() -> None:
    read(STREAM)


@settings(max_examples=300, deadline=None)
@given(
    position=st.one_of(
        st.integers(0, len(STREAM) - 1),
        st.integers(0, 79),
        st.integers(OVERHEAD, OVERHEAD + 20),
        st.integers(FOOTER - 8 * SECTOR, len(STREAM) - 1),
    ),
    flip=st.integers(1, 255),
)
def test_a_changed_byte_is_an_error_or_harmless(position: int, flip: int) -> None:
    try:
        read(replaced(position, bytes([STREAM[position] ^ flip])))
    except VBackupError as error:
        assert "disk 2000 of web1" in error.message  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(STREAM) // SECTOR - 1), st.binary(min_size=1, max_size=64)), min_size=1))
def test_changed_sectors_are_an_error_or_harmless(changes: list[tuple[int, bytes]]) -> None:
    stream = bytearray(STREAM)
    for sector, data in changes:
        stream[sector * SECTOR : sector * SECTOR + len(data)] = data
    try:
        read(bytes(stream))
    except VBackupError as error:
        assert "disk 2000 of web1" in error.message  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.integers(0, len(STREAM) - 1), st.integers(FOOTER, len(STREAM) - 1)))
def test_a_cut_stream_may_be_tried_again(length: int) -> None:
    with pytest.raises(Unavailable, match="ends early") as caught:
        read(STREAM[:length])
    assert caught.value.transient


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=4096))
def test_noise_is_an_error(noise: bytes) -> None:
    with pytest.raises(VBackupError):
        read(noise)


@settings(max_examples=100, deadline=None)
@given(st.integers(OVERHEAD // SECTOR, len(STREAM) // SECTOR - 1), st.integers(1, 200))
def test_sectors_that_are_missing_are_an_error(start: int, count: int) -> None:
    with pytest.raises(VBackupError):
        read(STREAM[: start * SECTOR] + STREAM[(start + count) * SECTOR :])


def _first_grain_left_out() -> bytes:
    (size,) = struct.unpack_from("<I", STREAM, OVERHEAD + 8)
    end = OVERHEAD + -(-(12 + size) // SECTOR) * SECTOR
    return STREAM[:OVERHEAD] + pack_marker(MarkerKind.TABLE, 4) + bytes(end - OVERHEAD - SECTOR) + STREAM[end:]


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"#!/bin/sh\n".ljust(4096), "no VMDK"),
        (replaced(73, b"\n\n\n\n"), "no VMDK"),
        (replaced(4, struct.pack("<I", 9)), "version 9"),
        (replaced(8, struct.pack("<I", 1)), "not stream-optimized"),
        (replaced(77, b"\0\0"), "not stream-optimized"),
        (replaced(20, struct.pack("<Q", 100)), "grains of 100"),
        (replaced(20, struct.pack("<Q", 1 << 40)), "grains of"),
        (replaced(12, struct.pack("<Q", 0)), "capacity of 0"),
        (replaced(12, struct.pack("<Q", (1 << 64) - 1)), "capacity of"),
        (replaced(12, struct.pack("<Q", SIZE // SECTOR + 1)), "is of a disk of"),
        (replaced(44, struct.pack("<I", 511)), "511 entries"),
        (replaced(64, struct.pack("<Q", 1 << 60)), "grains begin"),
        (replaced(56, struct.pack("<Q", 1 << 60)), "ends early"),
        (replaced(OVERHEAD, struct.pack("<Q", 64)), "out of place"),
        (replaced(OVERHEAD, struct.pack("<Q", SIZE // SECTOR)), "out of place"),
        (replaced(OVERHEAD, struct.pack("<Q", 4 * 128)), "out of place"),
        (replaced(OVERHEAD, struct.pack("<Q", 3 * 128)), "out of place"),
        (replaced(OVERHEAD + 8, struct.pack("<I", (1 << 32) - 1)), "has 4294967295 bytes"),
        (replaced(OVERHEAD + 12, b"\0\0"), "damaged"),
        (_first_grain_left_out(), "of grain table 0|has no grain directory|marker of kind|does not hold"),
        (STREAM + b"\0", "follows the end"),
        (STREAM[:-SECTOR] + pack_marker(MarkerKind.TABLE, 4), "no end of the stream"),
        (replaced(FOOTER + 12, struct.pack("<Q", 1)), "another disk than its header"),
        (replaced(FOOTER + 56, struct.pack("<Q", 1)), "another disk than its header"),
        (made(pack_marker(MarkerKind.END, 0)), "marker of kind 0"),
        (made(pack_marker(MarkerKind.TABLE, 5)), "5 sectors"),
        (made((pack_marker(MarkerKind.TABLE, 4) + bytes(4 * SECTOR)) * 3), "more grain tables"),
        (made((pack_marker(MarkerKind.DIRECTORY, 1) + bytes(SECTOR)) * 2), "two grain directories"),
        (made(pack_grain(0, zlib.compress(bytes(GRAIN - 1)))), "does not hold"),
        (made(pack_grain(0, zlib.compress(bytes(GRAIN))[:-4])), "does not hold"),
    ],
)
def test_what_is_wrong_is_said(stream: bytes, says: str) -> None:
    with pytest.raises((Corrupt, Unsupported, Unavailable), match=says):
        read(stream)


def test_a_grain_that_is_moved_is_found_by_the_tables() -> None:
    moved = replaced(OVERHEAD, struct.pack("<Q", 128))  # the first of four: the next one is then a second one there
    with pytest.raises(Corrupt):
        read(moved)
    last = STREAM.rindex(struct.pack("<Q", 33 * MIB // SECTOR))
    with pytest.raises(Corrupt, match="grain table 1 tells of"):
        read(replaced(last, struct.pack("<Q", 33 * MIB // SECTOR + 128)))


def test_a_bomb_is_not_inflated() -> None:
    bomb = zlib.compressobj(9)
    deflated = b"".join(bomb.compress(bytes(MIB)) for _ in range(64)) + bomb.flush()
    assert len(deflated) < 2 * GRAIN
    tracemalloc.start()
    try:
        with pytest.raises(Corrupt, match="does not hold"):
            read_all(made(pack_grain(0, deflated)))
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def read_all(stream: bytes) -> int:
    return sum(len(b.data) for b in read_stream(io.BytesIO(stream), SIZE, "disk 2000 of web1"))


def test_tables_without_end_take_no_memory() -> None:
    one = pack_marker(MarkerKind.TABLE, 4) + bytes(4 * SECTOR)
    header = Header(1 << 30, AT_END, 128)  # 512 GiB: 16384 tables
    stream = made(*[one] * (header.tables + 1), header=header)
    with pytest.raises(Corrupt, match="more grain tables"):
        list(read_stream(io.BytesIO(stream), 512 << 30, "disk"))
