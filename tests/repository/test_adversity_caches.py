"""Caches that are full, rotten or locked fail nothing."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess

from tests.repository.adversity import CHUNK, disks, lab, store
from tests.support import back_up, guest, noise, repository, restored
from vbackup.repository.cache import Cache

__all__ = ["lab", "store"]  # fixtures


def test_a_full_cache_directory_fails_nothing(store, lab, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "t", small], check=True)
    try:
        target = repository(store, small)
        target.init()
        target.points()
        with contextlib.suppress(OSError), (small / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        guest(lab, "web", noise(500 * CHUNK, 1))
        point = back_up(target, lab, "web")
        target.close()
        again = repository(store, small)
        assert restored(again, again.points()[0]) == disks(lab)
        assert again.verify([point], lambda size: None) == []
        again.close()
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_rotten_cache_file_is_replaced(store, lab, tmp_path):
    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", noise(500 * CHUNK, 1))
    back_up(target, lab, "web")
    target.close()
    (file,) = tmp_path.glob("*.sqlite")
    data = bytearray(file.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    file.write_bytes(bytes(data))
    for _ in range(2):
        again = repository(store, tmp_path)
        assert restored(again, back_up(again, lab, "web")) == disks(lab)
        again.close()


def test_a_locked_cache_file_is_left_to_its_user(tmp_path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda name, **more: connect(name, **{**more, "timeout": 0.1}))
    path = tmp_path / "x.sqlite"
    Cache(path).close()
    inode = path.stat().st_ino
    holder = connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    cache = Cache(path)
    cache.set_points({"a": (b"o", b"b")}, [])
    assert cache.points() == {"a": (b"o", b"b")}
    assert path.stat().st_ino == inode
    holder.close()
    cache.close()
