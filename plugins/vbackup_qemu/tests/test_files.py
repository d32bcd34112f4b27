"""New images that are written without a server: QEMU must find in them what it would have written itself."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from vbackup.api import NoSpace, Run
from vbackup_qemu import qcow2file, rawfile
from vbackup_qemu.host import LocalHost
from vbackup_qemu.sink import ImageSink
from vbackup_qemu.window import joined

CLUSTER = 64 << 10
SPAN = 512 << 20
"""What a level 2 table tells of."""


def runs(size: int, unit: int, seed: int) -> Iterator[Run]:
    """Cover a disk, with a little data near the borders of tables and elsewhere."""
    rng = random.Random(seed)
    at = 0
    while at < size:
        near = SPAN - at % SPAN - rng.randrange(1, 6) * unit
        gap = min(size - at, max(0, rng.choice([0, 0, unit, 99 * unit, size // 5 // 512 * 512, near])))
        if gap:
            yield Run(at, gap, None)
        at += gap
        length = min(unit * rng.randrange(1, 9), size - at)
        if length:
            yield Run(at, length, rng.randbytes(length))
        at += length


@pytest.mark.parametrize("unit", [512, 4096, CLUSTER, 2 * CLUSTER])
@pytest.mark.parametrize("size", [0, 512, CLUSTER, 1 << 20, SPAN, SPAN + 512, 3 * SPAN + 7 * CLUSTER])
def test_qemu_finds_a_whole_image_with_what_was_written(tmp_path: Path, size: int, unit: int) -> None:
    image, raw = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    image.write_bytes(b"something else")
    raw.touch()
    os.truncate(raw, size)
    qcow2file.write(image, size, runs(size, unit, size + unit), "web/vda")
    rawfile.write(raw, runs(size, unit, size + unit), "web/vda")
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=True)
    subprocess.run(["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", raw, image], check=True)


def test_a_raw_file_holds_what_was_written(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.touch()
    os.truncate(raw, 4 << 20)
    rawfile.write(raw, runs(4 << 20, 4096, 1), "web/vda")
    expected = b"".join(bytes(run.length) if run.data is None else bytes(run.data) for run in runs(4 << 20, 4096, 1))
    assert raw.read_bytes() == expected


def test_a_disk_that_ends_within_a_sector_gets_all_of_it(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    image.touch()
    qcow2file.write(image, 1000, [Run(0, 1000, b"x" * 1000)], "web/vda")
    found = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", "-f", "qcow2", image]))
    assert (found["virtual-size"], found["format-specific"]["data"]["compat"]) == (1024, "1.1")


def test_zeros_take_no_room_on_a_huge_disk(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    image.touch()
    size = 8 << 40
    middle = size // 2
    data = [Run(0, middle, None), Run(middle, 4096, b"x" * 4096), Run(middle + 4096, size - middle - 4096, None)]
    qcow2file.write(image, size, data, "web/vda")
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", image], check=True)
    assert image.stat().st_size < 1 << 20


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_full_file_system_is_no_space(tmpfs: Path, kind: str) -> None:
    path = tmpfs / "disk"
    path.touch()
    data = (Run(n << 20, 1 << 20, os.urandom(1 << 20)) for n in range(64))
    write = rawfile.write if kind == "raw" else partial(_write_qcow2, 64 << 20)
    with pytest.raises(NoSpace, match="web/vda: writing"):
        write(path, data, "web/vda")


def _write_qcow2(size: int, path: Path, data: Iterator[Run], label: str) -> None:
    qcow2file.write(path, size, data, label)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_no_space_that_only_the_close_tells_of_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As with NFS: what was written has not been sent before."""
    path = tmp_path / "disk"
    path.touch()
    close = os.close

    def tell_late(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        close(descriptor)
        if name == path and mode == os.O_WRONLY:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    sink = ImageSink(LocalHost(), path, kind, 512, zeroed=True, sockets=tmp_path, label="web/vda")
    monkeypatch.setattr(os, "close", tell_late)
    with pytest.raises(NoSpace, match="web/vda: writing"):
        sink.write([Run(0, 512, b"x" * 512)])
    assert not sink.is_complete


def test_small_runs_are_joined_for_a_server() -> None:
    small = [Run(at, 4096, bytes([at >> 12]) * 4096) for at in range(0, 3 * 4096, 4096)]
    zeros = Run(3 * 4096, 4096, None)
    apart = Run(8 * 4096, 4096, b"z" * 4096)
    assert list(joined([*small, zeros, apart])) == [
        Run(0, 3 * 4096, b"".join(bytes(run.data or b"") for run in small)), zeros, apart
    ]  # fmt: skip
