"""streamOptimized VMDKs, with qemu-img as the referee in both directions."""

from __future__ import annotations

import io
import os
import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vbackup.api import PluginError, Run, Unsupported
from vbackup_vsphere.vmdk.reader import BLOCK, read_stream
from vbackup_vsphere.vmdk.writer import GRAIN, write_stream

MIB = 1 << 20


def runs_of(path: Path) -> Iterator[Run]:
    """Yield a sparse file as a restore does: data where it has some, zeros elsewhere."""
    with path.open("rb") as file:
        size, position = path.stat().st_size, 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:
                start = size
            if start > position:
                yield Run(position, start - position, None)
                position = start
                continue
            end = min(os.lseek(file.fileno(), position, os.SEEK_HOLE), position + 4 * MIB)
            yield Run(position, end - position, os.pread(file.fileno(), end - position, position))
            position = end


def write(target: Path, runs: Iterable[Run], capacity: int, level: int = 1) -> None:
    with target.open("wb") as file:
        file.writelines(write_stream(runs, capacity, level=level))


def qemu_img(*arguments: str | Path) -> None:
    done = subprocess.run(["qemu-img", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def plain(stream: bytes, capacity: int) -> bytes:
    disk = bytearray(capacity)
    for offset, data in read_stream(io.BytesIO(stream), capacity, "disk"):
        disk[offset : offset + len(data)] = data
    return bytes(disk)


def sparse(path: Path, size: int, seed: int) -> Path:
    """Make a disk with random, repetitive and zero parts at odd places, its first and last sector among them."""
    rng = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size)
        places = [0, size - 512, *(rng.randrange(size // 512) * 512 for _ in range(12))]
        for place in places:
            length = min(size - place, rng.choice((512, 4096, GRAIN, 200 << 10, MIB)))
            data = rng.choice((rng.randbytes(length), bytes(length), b"vbackup " * (length // 8)))
            os.pwrite(file.fileno(), data, place)
        os.pwrite(file.fileno(), rng.randbytes(512), size - 512)
    return path


SIZES = [512, GRAIN - 512, GRAIN, MIB, 64 * MIB, 64 * MIB + 512, 33 * MIB - 3584, (3 << 30) + 3584]


@pytest.mark.parametrize("size", SIZES)
def test_qemu_reads_what_is_written(tmp_path: Path, size: int) -> None:
    raw = sparse(tmp_path / "disk.raw", size, size)
    vmdk = tmp_path / "disk.vmdk"
    write(vmdk, runs_of(raw), size)
    qemu_img("check", "-f", "vmdk", vmdk)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", raw, vmdk)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_written_is_read_again(tmp_path: Path, size: int) -> None:
    raw = sparse(tmp_path / "disk.raw", size, size)
    vmdk = tmp_path / "disk.vmdk"
    write(vmdk, runs_of(raw), size)
    back = tmp_path / "back.raw"
    with vmdk.open("rb") as stream, back.open("wb") as file:
        file.truncate(size)
        end = 0
        for offset, data in read_stream(stream, size, "disk"):
            assert offset >= end
            assert 0 < len(data) <= BLOCK
            end = offset + len(data)
            os.pwrite(file.fileno(), data, offset)
    qemu_img("compare", "-f", "raw", "-F", "raw", raw, back)


@pytest.mark.parametrize("size", [GRAIN, 64 * MIB, 33 * MIB - 3584])
def test_what_qemu_writes_is_read(tmp_path: Path, size: int) -> None:
    raw = sparse(tmp_path / "disk.raw", size, size)
    vmdk = tmp_path / "disk.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, vmdk)
    assert plain(vmdk.read_bytes(), size) == raw.read_bytes()


def test_an_empty_disk_is_a_stream_without_grains(tmp_path: Path) -> None:
    size = 100 * MIB
    vmdk = tmp_path / "disk.vmdk"
    write(vmdk, [Run(0, MIB, bytes(MIB)), Run(MIB, size - MIB, None)], size)
    assert list(read_stream(io.BytesIO(vmdk.read_bytes()), size, "disk")) == []
    qemu_img("check", "-f", "vmdk", vmdk)
    assert vmdk.stat().st_size < 128 << 10


def test_neighbouring_grains_come_in_one_block() -> None:
    data = random.Random(1).randbytes(3 * MIB)
    stream = b"".join(write_stream([Run(0, len(data), data)], len(data), level=1))
    assert [(b.offset, len(b.data)) for b in read_stream(io.BytesIO(stream), None, "disk")] == [
        (0, MIB),
        (MIB, MIB),
        (2 * MIB, MIB),
    ]


class Trickle(io.BytesIO):
    """A connection that gives a few bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 1, 777))


def test_a_slow_connection_is_read_alike() -> None:
    data = random.Random(2).randbytes(MIB)
    stream = b"".join(write_stream([Run(0, MIB, data)], MIB, level=1))
    assert b"".join(bytes(b.data) for b in read_stream(Trickle(stream), MIB, "disk")) == data


SECTORS = 600


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.sets(st.integers(1, SECTORS - 1), max_size=20),
    kinds=st.lists(st.sampled_from("zdn"), min_size=21, max_size=21),
)
def test_runs_of_any_cut_make_the_same_disk(cuts: set[int], kinds: list[str]) -> None:
    edges = [0, *sorted(cuts), SECTORS]
    rng = random.Random(len(cuts))
    runs, disk = [], b""
    for start, end, kind in zip(edges, edges[1:], kinds, strict=False):
        length = (end - start) * 512
        data = rng.randbytes(length) if kind == "d" else bytes(length)
        runs.append(Run(start * 512, length, None if kind == "n" else memoryview(data)))
        disk += data
    stream = b"".join(write_stream(runs, len(disk), level=1))
    assert plain(stream, len(disk)) == disk


@pytest.mark.parametrize(
    "runs",
    [
        [Run(0, 512, None)],
        [Run(512, 512, None)],
        [Run(0, 512, None), Run(0, 512, None)],
        [Run(0, 1536, None)],
        [Run(0, 512, bytes(512)), Run(1024, 512, None)],
    ],
)
def test_runs_that_do_not_cover_the_disk_are_refused(runs: list[Run]) -> None:
    with pytest.raises(PluginError):
        list(write_stream(runs, 1024, level=1))


@pytest.mark.parametrize("capacity", [0, 511, 513, 65 << 40])
def test_sizes_that_no_vmdk_has_are_refused(capacity: int) -> None:
    with pytest.raises(Unsupported):
        list(write_stream([Run(0, capacity, None)], capacity, level=1))
