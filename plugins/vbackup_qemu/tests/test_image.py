"""Images by qemu-img."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.lab.luks import make_luks
from vbackup.api import Busy, ConfigError, NoSpace, NotFound, VBackupError
from vbackup_qemu import image
from vbackup_qemu.host import Host, LocalHost
from vbackup_qemu.server import serve

SIZE = 4 << 20


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_new_image_is_empty_thin_and_private(host: Host, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a:b, c"
    image.create(host, path, kind, SIZE)
    info = image.info(host, path, kind)
    assert (info.format, info.virtual_size, info.bitmaps) == (kind, SIZE, {})
    assert info.actual_size < SIZE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_bitmaps_come_and_go(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    image.create(host, path, "qcow2", SIZE)
    image.add_bitmap(host, path, "one")
    image.add_bitmap(host, path, "two")
    subprocess.run(["qemu-img", "bitmap", "--disable", str(path), "two"], check=True)
    bitmaps = image.info(host, path, "qcow2").bitmaps
    assert (bitmaps["one"].granularity, bitmaps["one"].enabled, bitmaps["one"].consistent) == (65536, True, True)
    assert not bitmaps["two"].enabled
    image.remove_bitmap(host, path, "one")
    assert list(image.info(host, path, "qcow2").bitmaps) == ["two"]


def test_info_tells_what_rules_out_tracking(local: LocalHost, tmp_path: Path) -> None:
    old, overlay, split = tmp_path / "old", tmp_path / "overlay", tmp_path / "split"
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, "-o", "compat=0.10", str(old), "1M"], check=True)
    subprocess.run([*create, "-b", str(old), "-F", "qcow2", str(overlay)], check=True)
    subprocess.run([*create, "-o", f"data_file={tmp_path}/data", str(split), "1M"], check=True)
    make_luks(tmp_path / "luks")
    assert image.info(local, old, "qcow2").compat == "0.10"
    assert image.info(local, overlay, "qcow2").backing == str(old)
    assert image.info(local, split, "qcow2").data_file == f"{tmp_path}/data"
    assert image.info(local, tmp_path / "luks", "qcow2").encrypted


def test_an_image_in_use_is_busy_unless_one_only_looks(local: LocalHost, tmp_path: Path, sockets: Path) -> None:
    path = tmp_path / "disk.qcow2"
    image.create(local, path, "qcow2", SIZE)
    with serve(local, path, "qcow2", read_only=False, sockets=sockets):
        with pytest.raises(Busy) as caught:
            image.info(local, path, "qcow2")
        assert "libvirt" in caught.value.hint
        assert caught.value.transient
        assert image.info(local, path, "qcow2", force_share=True).virtual_size == SIZE
        with pytest.raises(Busy):
            image.add_bitmap(local, path, "b")


def test_errors_name_the_image(host: Host, tmp_path: Path, tmpfs: Path) -> None:
    with pytest.raises(NotFound, match="nothing"):
        image.info(host, tmp_path / "nothing", "qcow2")
    (tmp_path / "garbage").write_bytes(b"garbage" * 1000)
    with pytest.raises(VBackupError, match="garbage"):
        image.info(host, tmp_path / "garbage", "qcow2")
    with pytest.raises(NotFound):
        image.create(host, tmp_path / "no" / "disk", "raw", SIZE)
    (tmpfs / "full").write_bytes(bytes(8 << 20))
    with pytest.raises(NoSpace):
        image.create(host, tmpfs / "disk", "qcow2", SIZE)


def test_a_relative_path_is_refused_for_it_could_name_a_protocol(local: LocalHost) -> None:
    with pytest.raises(ConfigError, match="not absolute"):
        image.info(local, "nbd:localhost:10809", "raw")


def test_a_trace_tells_files_apart_and_shows_writes(host: Host, tmp_path: Path) -> None:
    """Links are followed; whatever is in the name."""
    one, other = tmp_path / "a b\tc", tmp_path / "link"
    one.write_bytes(b"x")
    other.symlink_to(one)
    first, second = image.trace(host, [one, other])
    assert (first.inode, first.size, first.modified) == (second.inode, second.size, second.modified)
    status = one.stat()
    assert (first.inode, first.size) == (f"{status.st_dev}:{status.st_ino}", 1)
    os.utime(one, ns=(0, status.st_mtime_ns + 1))
    assert image.trace(host, [one]) != (first,)
    assert image.trace(host, []) == ()
    with pytest.raises(NotFound):
        image.trace(host, [tmp_path / "none"])


def test_all_files_below_an_image_are_found(host: Host, tmp_path: Path) -> None:
    """Relative names and data files among them."""
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, "-o", "data_file=data", "bottom", "1M"], check=True, cwd=tmp_path)
    subprocess.run([*create, "-b", "bottom", "-F", "qcow2", "middle"], check=True, cwd=tmp_path)
    subprocess.run([*create, "-b", "middle", "-F", "qcow2", "top"], check=True, cwd=tmp_path)
    found = image.backing_files(host, tmp_path / "top", "qcow2")
    assert found == [str(tmp_path / name) for name in ("middle", "bottom", "data")]
    assert image.backing_files(host, tmp_path / "bottom", "qcow2") == []
