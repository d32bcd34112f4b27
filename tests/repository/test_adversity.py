"""Histories that once broke a promise: what a deduplication hit may rest on, caches that fail, plugins that lie."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime

import pytest

import tests.support
from tests.support import back_up, guest, noise, repository, restored
from vbackup.api import (
    AlreadyExists,
    Block,
    Corrupt,
    Extent,
    Kind,
    NotFound,
    PluginError,
    Quiesce,
    Range,
    Unavailable,
    Unsupported,
)
from vbackup.engine.backup import BackUp
from vbackup.engine.copy import DiskCopy
from vbackup.repository.cache import Cache
from vbackup.repository.layout import pack_key
from vbackup.testing.hypervisors import FakeCapture, FakeHypervisor, FakeSource
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup_local.transport import Local
from vbackup_zstd.codec import Zstd

CHUNK = 64 << 10


@pytest.fixture
def store() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def lab() -> FakeHypervisor:
    return FakeHypervisor()


def disks(lab: FakeHypervisor, name: str = "web") -> dict[str, bytes]:
    return {key: bytes(disk.data) for key, disk in lab.guests[name].disks.items()}


def work(lab: FakeHypervisor, writer, owner: str) -> BackUp:
    return BackUp(lab, "lab", "nightly", owner, writer, Quiesce.TRY, threading.Event(), lambda progress: None)


def first_pack(store: MemoryTransport) -> str:
    return max((info for info in store.list("packs")), key=lambda info: info.size).key


def damage(store: MemoryTransport, key: str, start: int, end: int) -> None:
    data = bytearray(store.get(key))
    data[start:end] = bytes(end - start)
    store.put(key, data)


# What a hit may rest on


def test_an_adopted_pack_that_the_store_loses_is_no_hit(store, lab, tmp_path):
    """A dead run's pack was adopted by a run that died too; then the store went back to an older copy."""
    target = repository(store, tmp_path / "c")
    target.init()
    machine = guest(lab, "web", noise(100 * CHUNK, 1))
    back_up(target, lab, "web")
    before = {info.key: store.get(info.key) for info in store.list()}
    machine.disks["vda"].write(0, noise(10 * CHUNK, 2))
    back_up(repository(store, tmp_path / "other"), lab, "web")
    for info in [*store.list("index"), *store.list("points")]:
        if info.key not in before:
            store.delete(info.key)
    target.writer().__enter__()
    target.close()
    for info in list(store.list("packs")):
        if info.key not in before:
            store.delete(info.key)
    again = repository(store, tmp_path / "c")
    machine.disks["vda"].lost_reason = "read in full"
    assert restored(again, back_up(again, lab, "web")) == disks(lab)


def test_two_copies_of_a_repository_do_not_share_hits(store, lab, tmp_path):
    """One cache file, one id, two stores; a run into the original ends while one into the copy is under way."""
    original = repository(store, tmp_path)
    original.init()
    copied = MemoryTransport()
    for info in list(store.list()):
        copied.put(info.key, store.get(info.key))
    copy = repository(copied, tmp_path)
    guest(lab, "web", noise(100 * CHUNK, 1))
    with copy.writer() as writer:
        back_up(original, lab, "web")
        point = work(lab, writer, copy.id).run(lab.machines()[0], None).point
    assert restored(repository(copied, tmp_path / "fresh"), point) == disks(lab)


def test_a_pack_that_was_cut_short_is_no_hit(store, lab, tmp_path):
    target = repository(store, tmp_path)
    target.init()
    content = noise(100 * CHUNK, 1)
    guest(lab, "web", content)
    back_up(target, lab, "web")
    store.put(first_pack(store), b"")
    target.close()
    again = repository(store, tmp_path)
    guest(lab, "twin", content)
    point = back_up(again, lab, "twin")
    assert restored(again, point) == disks(lab, "twin")
    assert any("cut short" in warning for warning in point.warnings)


def test_what_verify_found_damaged_is_stored_again_by_the_next_run(store, lab, tmp_path):
    target = repository(store, tmp_path)
    target.init()
    machine = guest(lab, "web", noise(100 * CHUNK, 1))
    back_up(target, lab, "web")
    key = first_pack(store)
    damage(store, key, 5000, store.size(key) - 13000)
    target.close()
    again = repository(store, tmp_path)
    assert again.verify(again.points(), lambda size: None)
    machine.disks["vda"].write(0, b"x")
    point = back_up(again, lab, "web")
    assert "missing, damaged" in str(point.disks[0].full_reason)
    assert restored(again, point) == disks(lab)
    assert back_up(again, lab, "web").disks[0].full_reason is None
    assert again.verify(again.points()[1:], lambda size: None) == []


@pytest.mark.parametrize("rolled_back", [False, True])
def test_a_damaged_map_node_is_healed_by_the_run_that_meets_it(store, lab, tmp_path, rolled_back):
    def open_() -> tests.support.Repository:
        return repository(store, tmp_path, chunk_size=16 << 10)

    target = open_()
    target.init()
    machine = guest(lab, "web", noise(600 * 16384, 1))
    back_up(target, lab, "web")
    old = bytes(machine.disks["vda"].data)
    machine.disks["vda"].write(0, noise(16384, 5))
    point = back_up(target, lab, "web")
    opened = target._open()
    leaf = target._reader(point, "vda").map.node(1, 1 if rolled_back else 0)
    place = opened.store.locate([leaf])[leaf][0]
    damage(store, pack_key(place.pack), place.offset + 20, place.offset + 24)
    target.close()
    if rolled_back:  # tracking lies as well
        machine.disks["vda"].data[:] = old
    else:
        machine.disks["vda"].write(0, b"a touched block in that leaf")
    again = open_()
    point = back_up(again, lab, "web")
    assert "damaged" in str(point.disks[0].full_reason)
    assert restored(again, point) == disks(lab)


def test_packs_of_another_process_are_not_missing_because_they_are_new(store, lab, tmp_path):
    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", noise(10 * CHUNK, 1))
    guest(lab, "other", noise(10 * CHUNK, 2))
    back_up(target, lab, "web")

    def meanwhile(number: int, operation: str, key: str) -> None:
        if (operation, key) == ("list", "packs") and not done:
            done.append(True)
            back_up(target, lab, "other")

    done: list[bool] = []
    slow = repository(FaultyTransport(store, fail_after=meanwhile), tmp_path)
    assert back_up(slow, lab, "web").warnings == ()


def test_an_index_that_could_not_be_put_is_put_by_the_next_commit(store, lab, tmp_path):
    failed: list[bool] = []

    def fail(number: int, operation: str, key: str) -> Exception | None:
        if operation == "put" and key.startswith("index/") and not failed:
            failed.append(True)
            return Unavailable("the store is away")
        return None

    target = repository(FaultyTransport(store, fail), tmp_path)
    target.init()
    content = noise(10 * CHUNK, 1)
    guest(lab, "a", content)
    guest(lab, "b", content)
    with target.writer() as writer:
        with pytest.raises(Unavailable):
            work(lab, writer, target.id).run(lab.machines()[0], None)
        work(lab, writer, target.id).run(lab.machines()[1], None)
    assert len(list(store.list("index"))) == 1


# Others at the same time


def test_one_machine_that_fails_harms_no_other(store, lab, tmp_path, monkeypatch):
    """A codec falls over in a worker of one machine, and in the file of another."""

    class Odd(Zstd):
        name = "odd"

        def encode(self, data, context):
            if bytes(data[:3]) in {b"bad", b"nvr"}:
                raise RuntimeError("a third party's codec fell over")
            return super().encode(data, context)

    monkeypatch.setitem(tests.support.CODECS, "odd", Odd)
    target = repository(store, tmp_path, codecs=("odd", "aes-256-gcm"))
    target.init()
    guest(lab, "a", b"bad" + noise(CHUNK - 3, 1))
    guest(lab, "b", b"").files = {"nvram": b"nvram"}
    guest(lab, "c", noise(CHUNK, 2))
    with target.writer() as writer:
        for machine in lab.machines()[:2]:
            with pytest.raises(RuntimeError):
                work(lab, writer, target.id).run(machine, None)
        point = work(lab, writer, target.id).run(lab.machines()[2], None).point
    assert restored(target, point) == disks(lab, "c")


def test_no_guest_is_disturbed_for_a_store_that_has_failed(store, lab, tmp_path):
    target = repository(
        FaultyTransport(store, lambda n, op, key: Unavailable("gone for good") if key.startswith("packs/") else None),
        tmp_path,
    )
    target.init()
    for name in ("a", "b"):
        guest(lab, name, noise(CHUNK, ord(name)))
    with target.writer() as writer:
        for machine in lab.machines():
            with pytest.raises(Unavailable, match="gone for good"):
                work(lab, writer, target.id).run(machine, None)
    assert lab.captures == 1


def test_a_reader_that_stays_open_sees_what_others_store_later(store, lab, tmp_path, monkeypatch):
    monkeypatch.setattr("vbackup.repository.store._REFRESH_SECONDS", 0.0)
    writer = repository(store, tmp_path / "w")
    writer.init()
    reader = repository(store, tmp_path / "r")
    machine = guest(lab, "web", noise(10 * CHUNK, 1))
    for number in range(4):
        machine.disks["vda"].write(0, noise(CHUNK, 50 + number))
        back_up(writer, lab, "web")
        assert restored(reader, reader.points()[-1]) == disks(lab)


def test_a_store_that_fails_after_the_last_commit_takes_no_point_back(store, lab, tmp_path):
    away: list[bool] = []
    target = repository(
        FaultyTransport(store, lambda n, op, key: Unavailable("away") if away and op == "put" else None), tmp_path
    )
    target.init()
    guest(lab, "web", noise(10 * CHUNK, 1))
    with target.writer() as writer:
        work(lab, writer, target.id).run(lab.machines()[0], None)
        disk = writer.disk(CHUNK, None)
        disk.write(0, noise(CHUNK, 3))
        disk._collect(wait=True)
        away.append(True)
    assert len(target.points()) == 1


def test_a_capture_that_ends_badly_after_the_commit_is_a_warning(store, tmp_path):
    class Lab(FakeHypervisor):
        @contextlib.contextmanager
        def capture(self, machine, request) -> Iterator[FakeCapture]:
            with super().capture(machine, request) as capture:
                yield capture
            raise Unavailable("libvirtd went away")

    target = repository(store, tmp_path)
    target.init()
    lab = Lab()
    guest(lab, "web", noise(CHUNK, 1))
    with target.writer() as writer:
        made = work(lab, writer, target.id).run(lab.machines()[0], None)
    assert "libvirtd went away" in made.leftovers[0]
    assert lab.committed == [made.point.marker]


# Caches


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


# Damage told from trouble


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


# Plugins that lie


def test_unchanged_in_a_full_read_is_an_error(store, lab, tmp_path, monkeypatch):
    target = repository(store, tmp_path)
    target.init()
    machine = guest(lab, "web", noise(10 * CHUNK, 1))
    back_up(target, lab, "web")
    machine.disks["vda"].lost_reason = "inconsistent"
    everything = [Extent(0, 10 * CHUNK, Kind.UNCHANGED)]
    monkeypatch.setattr(FakeSource, "extents", lambda self, full: iter(everything))
    with pytest.raises(PluginError, match="unchanged"):
        back_up(target, lab, "web")


@pytest.mark.parametrize("size", [100_000, 400_000])
def test_a_new_size_that_tracking_does_not_know_of_is_read_in_full(store, lab, tmp_path, size):
    target = repository(store, tmp_path)
    target.init()
    machine = guest(lab, "web", noise(4 * CHUNK, 1))
    back_up(target, lab, "web")
    data = machine.disks["vda"].data
    del data[size:]
    data.extend(bytes(size - len(data)))
    assert restored(target, back_up(target, lab, "web")) == disks(lab)
    assert back_up(target, lab, "web").disks[0].full_reason is None


def naive_time(capture):
    capture.time = datetime.now()  # noqa: DTZ005


def path_as_name(capture):
    capture.machine = capture.machine.model_copy(update={"name": "../../etc/passwd"})


def no_processors(capture):
    capture.machine = capture.machine.model_copy(update={"cpus": 0})


def surrogate(capture):
    capture.notes = ["disk /srv/\udcff.img was left out"]


def same_key_twice(capture):
    capture.disks = [capture.disks[0], capture.disks[0]]


@pytest.mark.parametrize("change", [naive_time, path_as_name, no_processors, surrogate, same_key_twice])
def test_what_cannot_be_read_back_is_not_committed(store, tmp_path, change):
    class Lab(FakeHypervisor):
        @contextlib.contextmanager
        def capture(self, machine, request) -> Iterator[FakeCapture]:
            with super().capture(machine, request) as capture:
                change(capture)
                yield capture

    target = repository(store, tmp_path)
    target.init()
    lab = Lab()
    guest(lab, "web", noise(CHUNK, 1))
    with pytest.raises(PluginError):
        back_up(target, lab, "web")
    assert list(store.list("points")) == []


def test_extents_that_never_end_to_alternate_do_not_pile_up(store, lab, tmp_path, monkeypatch):
    """Zero and unchanged by turns, behind one read that is under way: some of them are read, so that it goes on."""
    monkeypatch.setattr("vbackup.engine.copy._MOST_WAITING", 50)
    size = 2000 * CHUNK
    content = noise(CHUNK, 1) + bytes(size - CHUNK)
    most = 0

    class Source:
        key, full_reason = "vda", None

        def __init__(self) -> None:
            self.size = size

        def extents(self, *, full: bool) -> Iterator[Extent]:
            yield Extent(0, CHUNK, Kind.DATA)
            for number in range(1, 2000):
                kind = Kind.ZERO if number % 2 or full else Kind.UNCHANGED
                yield Extent(number * CHUNK, CHUNK, kind)

        def read(self, ranges: Iterator[Range]) -> Iterator[Block]:
            nonlocal most
            ahead: list[Range] = []
            for wanted in ranges:
                ahead.append(wanted)
                most = max(most, len(ahead))
                if len(ahead) == 4:
                    first = ahead.pop(0)
                    yield Block(first.offset, content[first.offset : first.offset + first.length])
            for first in ahead:
                yield Block(first.offset, content[first.offset : first.offset + first.length])

    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", content)
    (base,) = back_up(target, lab, "web").disks
    with target.writer() as writer:
        again = DiskCopy(Source(), "raw", base, writer, threading.Event(), lambda progress: None).run()
    assert again.content == base.content
    assert again.read > 20 * CHUNK


def test_a_repository_with_large_chunks_is_verified_in_small_memory(store, lab, tmp_path):
    target = repository(store, tmp_path, chunk_size=4 << 20)
    target.init()
    guest(lab, "web", noise(20 << 20, 1))
    point = back_up(target, lab, "web")
    assert target.verify([point], lambda size: None) == []
