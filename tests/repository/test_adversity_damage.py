"""Damage is told from trouble, and nothing that is left of a repository is overwritten or fills the memory."""

from __future__ import annotations

import contextlib
import os
import subprocess

import pytest

import tests.support
from tests.repository.adversity import CHUNK, lab, store, work
from tests.support import back_up, guest, noise, repository, restored
from vbackup.api import AlreadyExists, Corrupt, NotFound, Unavailable, Unsupported
from vbackup_local.transport import Local

__all__ = ["lab", "store"]  # fixtures


def test_verify_reads_the_points_themselves(store, lab, tmp_path):
    """The cache still has the good one."""
    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", noise(CHUNK, 1))
    point = back_up(target, lab, "web")
    assert target.points() == [point]
    store.put(f"points/{point.id}", b"garbage")
    (found,) = target.verify(target.points(), lambda size: None)
    assert point.id in found.reason


def test_a_codec_that_is_not_installed_is_no_damage(store, lab, tmp_path, monkeypatch):
    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", noise(CHUNK, 1))
    point = back_up(target, lab, "web")
    monkeypatch.delitem(tests.support.CODECS, "zstd")
    other = repository(store, tmp_path / "other", codecs=("aes-256-gcm",))
    for read in (lambda: restored(other, point), lambda: other.verify([point], lambda size: None)):
        with pytest.raises(Unsupported, match="zstd"):
            read()


def test_a_pack_that_lies_about_its_footer_is_left_out(store, lab, tmp_path):
    target = repository(store, tmp_path)
    target.init()
    store.put(f"packs/aa/{'aa' * 32}", bytes(1000) + (1011).to_bytes(4, "little") + b"VBPKEND1")
    guest(lab, "web", noise(CHUNK, 1))
    assert any("left out" in warning for warning in back_up(target, lab, "web").warnings)


@pytest.mark.parametrize("key", ["repository", f"keys/{'a' * 32}", f"points/{'a' * 32}", f"index/{'a' * 64}"])
def test_an_object_of_a_tebibyte_is_not_read_into_memory(lab, tmp_path, key):
    target = repository(Local(Local.options(path=tmp_path / "s")), tmp_path / "c")
    target.init()
    guest(lab, "web", noise(CHUNK, 1))
    point = back_up(target, lab, "web")
    target.close()
    path = tmp_path / "s" / key
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, 1 << 40)
    again = repository(Local(Local.options(path=tmp_path / "s")), tmp_path / "c")
    if key == "repository":
        with pytest.raises(Corrupt, match="larger"):
            again.points()
        return
    assert [p.id for p in again.points()] == [point.id]


def test_a_repository_with_large_chunks_is_verified_in_small_memory(store, lab, tmp_path):
    target = repository(store, tmp_path, chunk_size=4 << 20)
    target.init()
    guest(lab, "web", noise(20 << 20, 1))
    point = back_up(target, lab, "web")
    assert target.verify([point], lambda size: None) == []


def test_init_never_goes_over_what_is_left_of_a_repository(store, lab, tmp_path):
    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", noise(CHUNK, 1))
    back_up(target, lab, "web")
    target.close()
    store.delete("repository")
    again = repository(store, tmp_path)
    with pytest.raises(NotFound, match="from a copy"):
        again.points()
    with pytest.raises(AlreadyExists, match="from a copy"):
        again.init()


def test_a_store_unmounted_in_mid_run_is_not_mistaken_for_the_directory_below(lab, tmp_path):
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "t", mount], check=True)
    holder = subprocess.Popen(["sleep", "60"], cwd=mount)
    try:
        target = repository(Local(Local.options(path=mount)), tmp_path / "c")
        target.init()
        guest(lab, "web", noise(10 * CHUNK, 1))
        with contextlib.suppress(Unavailable), target.writer() as writer:
            work(lab, writer, target.id).run(lab.machines()[0], None)
            subprocess.run(["umount", "-l", mount], check=True)
            with pytest.raises(Unavailable, match="unmounted"):
                work(lab, writer, target.id).run(lab.machines()[0], None)
        assert list(mount.iterdir()) == []
    finally:
        holder.kill()
        holder.wait()
