"""Disks written into images, files and devices."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from vbackup.api import Extent, Kind, NoSpace, PluginError, Range, Run, split
from vbackup_qemu import image
from vbackup_qemu.host import Host, LocalHost
from vbackup_qemu.nbd import NbdClient, bitmap_context
from vbackup_qemu.server import serve
from vbackup_qemu.sink import ImageSink
from vbackup_qemu.source import NbdDisk

MIB = 1 << 20
SIZE = 8 * MIB


def runs(size: int = SIZE) -> Iterator[Run]:
    source = random.Random(5)
    for offset in range(0, size, MIB // 2):
        yield Run(offset, MIB // 2, None if offset % (2 * MIB) == 0 else source.randbytes(MIB // 2))


CONTENT = b"".join(bytes(r.length) if r.data is None else bytes(r.data) for r in runs())


def read(path: Path, kind: str, sockets: Path) -> bytes:
    with serve(LocalHost(), path, kind, sockets=sockets) as socket, NbdClient(socket) as client:
        disk = NbdDisk("vda", client, bitmap=None, full_reason="a test")
        return b"".join(bytes(b.data) for b in disk.read(split([Range(0, disk.size)], MIB)))


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_new_image_holds_what_was_written_and_is_thin(host: Host, tmp_path: Path, sockets: Path, kind: str) -> None:
    path = tmp_path / "disk"
    image.create(host, path, kind, SIZE)
    sink = ImageSink(host, path, kind, SIZE, zeroed=True, sockets=sockets, label="web/vda")
    assert not sink.is_complete
    sink.write(runs())
    assert sink.is_complete
    assert read(path, kind, sockets) == CONTENT
    assert path.stat().st_blocks * 512 < SIZE


def test_a_larger_device_keeps_what_is_beyond(local: LocalHost, loop: Path, sockets: Path) -> None:
    ImageSink(local, loop, "raw", SIZE // 2, zeroed=False, sockets=sockets, label="web/vda").write(runs(SIZE // 2))
    assert read(loop, "raw", sockets) == CONTENT[: SIZE // 2] + b"\xee" * (SIZE // 2)


def test_a_device_that_is_too_small_is_refused_before_a_byte(local: LocalHost, loop: Path, sockets: Path) -> None:
    sink = ImageSink(local, loop, "raw", 2 * SIZE, zeroed=False, sockets=sockets, label="web/vda")
    with pytest.raises(NoSpace, match="web/vda"):
        sink.write(runs(2 * SIZE))
    assert loop.read_bytes() == b"\xee" * SIZE


@pytest.mark.parametrize("bad", ["gap", "short", "length"])
def test_runs_that_do_not_cover_the_disk_are_an_error(
    local: LocalHost, tmp_path: Path, sockets: Path, bad: str
) -> None:
    path = tmp_path / "disk.raw"
    image.create(local, path, "raw", SIZE)
    wrong = {
        "gap": [Run(0, MIB, None), Run(2 * MIB, 6 * MIB, None)],
        "short": [Run(0, MIB, None)],
        "length": [Run(0, SIZE, b"x")],
    }[bad]
    sink = ImageSink(local, path, "raw", SIZE, zeroed=True, sockets=sockets, label="web/vda")
    with pytest.raises(PluginError):
        sink.write(wrong)
    assert not sink.is_complete


def test_a_full_file_system_is_no_space_and_the_server_ends(local: LocalHost, tmpfs: Path, sockets: Path) -> None:
    path = tmpfs / "disk.raw"
    image.create(local, path, "raw", 64 * MIB)
    sink = ImageSink(local, path, "raw", 64 * MIB, zeroed=True, sockets=sockets, label="web/vda")
    with pytest.raises(NoSpace):
        sink.write(Run(n * MIB, MIB, os.urandom(MIB)) for n in range(64))
    assert list(sockets.iterdir()) == []


def test_a_disk_whose_bitmap_is_not_shown_is_read_in_full_and_says_so(
    local: LocalHost, tmp_path: Path, sockets: Path
) -> None:
    path = tmp_path / "disk.qcow2"
    image.create(local, path, "qcow2", SIZE)
    with (
        serve(local, path, "qcow2", sockets=sockets) as socket,
        NbdClient(socket, contexts=("base:allocation", bitmap_context("b"))) as client,
    ):
        disk = NbdDisk("vda", client, bitmap="b", full_reason=None)
        assert disk.full_reason == "the server does not show the bitmap b"
        assert list(disk.extents(full=False)) == [Extent(0, SIZE, Kind.ZERO)]
