"""The local cache: what it answers, what it must not, and what becomes of it in trouble."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import back_up, guest, noise, repository, restored
from vbackup.api import Level, NotFound, Point, PruneOrder
from vbackup.repository import presence, prune
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.liars import Liar
from vbackup.testing.transport_contract import TransportContract
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup.wrappers.blocks import BLOCK, Blocks
from vbackup.wrappers.cache import CachingTransport
from vbackup.wrappers.retry import RetryingTransport
from vbackup_local.transport import Local, LocalOptions

MIB = 1 << 20
ROOM = 64 * MIB


def cached(inner, place, most=ROOM, prefixes=("packs",), **more):
    return CachingTransport(inner, Blocks(place, most, "main"), prefixes, **more)


class CacheContract(TransportContract):
    # Objects that are replaced while they are read (packs/a of the contract) are not for this cache.
    many = 1000  # a listing goes straight to the store
    prefixes = ("a", "c", "empty", "locks", "points", "work", "x", "0", "y" * 127)


class TestOverMemory(CacheContract):
    @pytest.fixture
    def transport(self, tmp_path):
        return cached(MemoryTransport(), tmp_path / "cache", prefixes=self.prefixes)


class TestOverLocal(CacheContract):
    @pytest.fixture
    def transport(self, tmp_path):
        (tmp_path / "store").mkdir()
        return cached(Local(LocalOptions(path=tmp_path / "store")), tmp_path / "cache", prefixes=self.prefixes)


class Place:
    """A store that counts, with one object, and where its cache is."""

    def __init__(self, tmp_path: Path) -> None:
        self.data = noise(3 * BLOCK + 1000, 1)
        self.memory = MemoryTransport()
        self.memory.put("packs/one", self.data)
        self.store = FaultyTransport(self.memory)
        self.directory = tmp_path / "cache"
        self.transport = cached(self.store, self.directory)

    def asked(self) -> int:
        """How many operations the store saw since this was asked last."""
        count, self.store.operations = self.store.operations, 0
        return count

    def files(self) -> list[Path]:
        return sorted(path for path in self.directory.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


RANGES = [
    (0, None), (0, 1), (1, BLOCK), (BLOCK - 1, 2), (BLOCK, BLOCK), (5, 3 * BLOCK), (3 * BLOCK, 1000),
    (3 * BLOCK + 999, 1), (2 * BLOCK + 7, None), (0, 1 << 40), (3 * BLOCK + 1000, 5), (1 << 40, 5),
]  # fmt: skip


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_any_range_is_read_once_and_then_from_here(place, offset, length):
    expected = place.data[offset : None if length is None else offset + length]
    assert place.transport.get("packs/one", offset, length) == expected
    assert place.asked() == 1
    assert place.transport.get("packs/one", offset, length) == expected
    assert place.asked() == 0


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_any_range_comes_from_a_whole_that_was_read(place, offset, length):
    place.transport.get("packs/one")
    place.asked()
    expected = place.data[offset : None if length is None else offset + length]
    assert place.transport.get("packs/one", offset, length) == expected
    assert place.asked() == (offset >= 4 * BLOCK)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_objects_of_any_size(place, size):
    place.memory.put("packs/two", place.data[:size])
    for count in (1, 0):
        assert place.transport.get("packs/two") == place.data[:size]
        assert place.asked() == count
    assert place.transport.get("packs/two", size // 2, size + 1) == place.data[size // 2 : size]
    assert place.asked() == 0


def test_what_is_missing_is_fetched_with_one_request(place):
    place.transport.get("packs/one", 10, 10)
    place.asked()
    assert place.transport.get("packs/one") == place.data
    assert place.asked() == 1


def test_only_what_is_named_is_kept(place):
    for key in ("packs-old/one", "points/one", "packs"):
        place.memory.put(key, b"1")
    for _ in range(2):
        assert place.transport.get("packs-old/one") == b"1"
        assert place.transport.get("points/one") == b"1"
    assert place.asked() == 4
    assert place.files() == []


def test_whether_an_object_is_there_the_store_is_asked(place):
    place.transport.get("packs/one")
    place.memory.delete("packs/one")
    assert list(place.transport.list()) == []
    for ask in (lambda: place.transport.size("packs/one"), lambda: place.transport.get("packs/one", 0, 0)):
        with pytest.raises(NotFound):
            ask()


def test_what_this_process_deletes_or_replaces_is_forgotten(place):
    place.transport.get("packs/one")
    place.transport.put("packs/one", b"other")
    assert place.transport.get("packs/one") == b"other"
    place.transport.delete("packs/one")
    with pytest.raises(NotFound):
        place.transport.get("packs/one")
    assert place.files() == []


def test_what_is_put_is_not_kept(place):
    place.transport.put("packs/two", place.data)
    assert place.files() == []


def test_it_survives_a_restart_and_stores_do_not_mix(place):
    place.transport.get("packs/one")
    place.asked()
    assert cached(place.store, place.directory).get("packs/one") == place.data
    assert place.asked() == 0
    other = CachingTransport(place.store, Blocks(place.directory, ROOM, "other"), ["packs"])
    other.get("packs/one")
    assert place.asked() == 1


SPOILS = {
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut": lambda data: data[:-100],
    "empty": lambda data: b"",
    "sum only": lambda data: data[:32],
    "zeros": lambda data: bytes(len(data)),
    "longer": lambda data: data + b"1",
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_rotten_block_is_read_again(place, spoil):
    place.transport.get("packs/one")
    for path in place.files():
        path.write_bytes(spoil(path.read_bytes()))
    place.asked()
    assert place.transport.get("packs/one") == place.data
    assert place.asked() == 1
    assert place.transport.get("packs/one") == place.data
    assert place.asked() == 0


def test_a_block_under_another_name_is_rotten(place):
    place.memory.put("packs/two", place.data[::-1])
    for key in ("packs/one", "packs/two"):
        place.transport.get(key)
    files = place.files()
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, contents[1:] + contents[:1], strict=True):
        path.write_bytes(content)
    assert place.transport.get("packs/one") == place.data
    assert place.transport.get("packs/two") == place.data[::-1]


def test_a_link_is_not_followed(place, tmp_path):
    place.transport.get("packs/one", 0, 1)
    (path,) = place.files()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    place.asked()
    assert place.transport.get("packs/one", 0, 1) == place.data[:1]
    assert place.asked() == 1


def test_it_is_private(place):
    before = os.umask(0)
    try:
        cached(place.store, place.directory / "deep").get("packs/one")
    finally:
        os.umask(before)
    made = [place.directory / "deep", *(place.directory / "deep").rglob("*")]
    assert {path.stat().st_mode & 0o777 for path in made if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in made if path.is_file()} == {0o600}


def used(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def test_it_stays_within_its_size_and_the_oldest_go(place):
    most = 32 * (BLOCK + 32)
    transport = cached(place.store, place.directory, most)
    for number in range(100):
        place.memory.put(f"packs/p{number}", place.data[:BLOCK])
        transport.get(f"packs/p{number}", 0, BLOCK)
        transport.get("packs/p0", 0, BLOCK)  # always in use
        assert used(place.directory) <= most
    place.asked()
    for number in (0, 99, 98, 97):
        transport.get(f"packs/p{number}", 0, BLOCK)
    assert place.asked() == 0
    transport.get("packs/p1", 0, BLOCK)
    assert place.asked() == 1


def test_a_smaller_size_takes_effect_with_the_first_block(place):
    place.memory.put("packs/large", bytes(30 * BLOCK))
    place.transport.get("packs/large")
    most = 8 * (BLOCK + 32)
    cached(place.store, place.directory, most).get("packs/one", 0, 1)
    assert used(place.directory) <= most


def test_nothing_else_in_the_directory_is_counted_or_removed(place):
    place.directory.mkdir(0o700, exist_ok=True)
    others = [
        place.directory / "mine.txt",
        place.directory / "ab" / "photo.jpg",
        place.directory / "c" / ("0" * 40 + "-1"),
    ]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(2 * MIB))
        os.utime(path, (0, 0))
    most = 16 * (BLOCK + 32)
    transport = cached(place.store, place.directory, most)
    place.memory.put("packs/large", bytes(30 * BLOCK))
    transport.get("packs/large")
    assert all(path.stat().st_size == 2 * MIB for path in others)
    transport.get("packs/one")
    place.asked()
    transport.get("packs/one")
    assert place.asked() == 0


def test_what_a_dead_process_left_half_written_grows_old_and_goes(place):
    place.transport.get("packs/one")
    half = place.files()[0].with_name(f".tmp-{'0' * 16}")
    half.write_bytes(bytes(1000))
    os.utime(half, (0, 0))
    place.memory.put("packs/large", bytes(6 * BLOCK))
    most = 8 * (BLOCK + 32)
    cached(place.store, place.directory, most).get("packs/large")
    assert not half.exists()


UNUSABLE = {
    "for others": lambda path: path.mkdir(0o755),
    "a file": lambda path: path.touch(),
    "no parent to be made in": lambda path: path.symlink_to("/proc/none/x"),
}


@pytest.mark.parametrize("spoil", UNUSABLE.values(), ids=UNUSABLE)
def test_a_directory_that_will_not_do_costs_only_the_cache(place, tmp_path, spoil, caplog):
    spoil(tmp_path / "other")
    transport = cached(place.store, tmp_path / "other")
    for _ in range(2):
        assert transport.get("packs/one") == place.data
    assert place.asked() == 2
    assert len(caplog.records) == 1
    assert str(tmp_path / "other") in caplog.text
    assert [finding.level for finding in transport.check()] == [Level.OK, Level.WARNING]


def test_a_disk_that_fills_up_costs_only_the_cache(place, caplog, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Blocks, "_write", full)
    for _ in range(2):
        assert place.transport.get("packs/one") == place.data
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_doctor_is_told_how_full_it_is(place):
    place.transport.get("packs/one")
    finding = place.transport.check()[-1]
    assert finding.level is Level.OK
    assert "of 0.1 GiB" in finding.detail


def test_who_reads_past_it_sees_the_store_and_heals_the_cache(place):
    """Bytes that were bad when they came: the store is judged as it is, and what differs is forgotten."""
    bad = bytearray(place.data)
    bad[BLOCK + 5] ^= 1
    lies = [True]
    liar = Liar(place.store, lambda key, data: bytes(bad) if lies else data)
    past: list[bool] = []
    transport = cached(liar, place.directory, is_past=lambda: bool(past))
    assert transport.get("packs/one") == bad
    lies.clear()
    assert transport.get("packs/one") == bad  # what nobody but its reader can tell
    past.append(True)
    step = 100_000
    read = b"".join(transport.get("packs/one", at, step) for at in range(0, len(bad), step))
    assert read == place.data
    past.clear()
    place.asked()
    assert transport.get("packs/one", 0, BLOCK) == place.data[:BLOCK]
    assert place.asked() == 0  # what was right has stayed
    assert transport.get("packs/one") == place.data


def test_who_reads_past_it_fills_nothing(place):
    transport = cached(place.store, place.directory, is_past=lambda: True)
    transport.get("packs/one")
    assert place.files() == []


def work(directory: str, seed: int) -> None:
    """Read objects through a small cache that others use, too; each must be what it is."""
    objects = [noise(BLOCK // 4 * (number % 9), number) for number in range(40)]
    memory = MemoryTransport()
    for number, data in enumerate(objects):
        memory.put(f"packs/p{number}", data)
    transport = cached(memory, Path(directory), 16 * (BLOCK + 32))
    for step in range(200):
        number = (seed * 17 + step * 7) % 40
        assert transport.get(f"packs/p{number}") == objects[number]


def test_many_threads(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, str(tmp_path / "cache"), seed) for seed in range(8)]:
            done.result(120)


def test_several_processes_of_which_some_die(tmp_path):
    directory = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    dying = [context.Process(target=work, args=(str(directory), seed)) for seed in range(2)]
    for process in dying:
        process.start()
    blocks = Blocks(directory, ROOM, "main")
    while not list(blocks._files()) and all(process.is_alive() for process in dying):
        dying[0].join(0.01)
    for process in dying:
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
    living = [context.Process(target=work, args=(str(directory), seed)) for seed in range(2)]
    for process in living:
        process.start()
    work(str(directory), 2)
    for process in living:
        process.join(120)
        assert process.exitcode == 0
    assert used(directory) <= 17 * (BLOCK + 32)


CHUNK = 64 << 10


class Hosts:
    """A repository, a host that reads it through a cache, and one that does not."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = MemoryTransport()
        self.packs: list[str] = []  # that the first host has read
        watched = FaultyTransport(self.store, self._watch)
        self.here = repository(cached(watched, tmp_path / "cache"), tmp_path / "here")
        self.there = repository(self.store, tmp_path / "there")
        self.here.init()
        self.lab = FakeHypervisor()
        self.disk = guest(self.lab, "web", noise(12 * CHUNK, 1)).disks["vda"]
        self.truth: dict[str, bytes] = {}

    def _watch(self, number: int, operation: str, key: str) -> None:
        if operation == "get" and key.startswith("packs/"):
            self.packs.append(key)

    def back_up(self) -> Point:
        point = back_up(self.here, self.lab, "web")
        self.truth[point.id] = bytes(self.disk.data)
        return point


@pytest.fixture
def hosts(tmp_path, monkeypatch):
    for module in (presence, prune):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.02)
    return Hosts(tmp_path)


def test_a_second_restore_reads_no_pack(hosts):
    point = hosts.back_up()
    assert restored(hosts.here, point)["vda"] == hosts.truth[point.id]
    assert hosts.packs
    hosts.packs.clear()
    assert restored(hosts.here, point)["vda"] == hosts.truth[point.id]
    assert hosts.packs == []


def test_a_backup_builds_on_nothing_that_is_only_in_the_cache(hosts):
    """What another host has pruned is stored again, though it can still be read here."""
    first = hosts.back_up()
    content = hosts.truth[first.id]
    hosts.disk.write(0, noise(12 * CHUNK, 2))
    hosts.back_up()
    for point in hosts.here.points():
        restored(hosts.here, point)
    hosts.there.delete([first])
    del hosts.truth[first.id]
    assert hosts.there.prune(PruneOrder(end_silent=True)).freed > 0
    hosts.disk.write(0, content)
    again = hosts.back_up()
    assert {point.id for point in hosts.there.points()} == hosts.truth.keys()
    assert hosts.there.verify(hosts.there.points(), lambda size: None) == []
    for opened in (hosts.here, hosts.there):
        assert restored(opened, again)["vda"] == content


def test_a_chunk_that_came_wrong_once_is_read_again(hosts, tmp_path):
    """Nobody but the reader can tell, and it says so: one bad answer must not fail every later restore."""
    point = hosts.back_up()
    lies = [True]
    liar = Liar(hosts.store, lambda key, data: bytes(byte ^ 1 for byte in data) if lies else data)
    transport = cached(liar, tmp_path / "bad")
    packs = [info.key for info in hosts.store.list("packs")]
    for pack in packs:
        transport.get(pack)
    lies.clear()
    assert all(transport.get(pack) != hosts.store.get(pack) for pack in packs)
    # Through a wrapper, as a site has it.
    opened = repository(RetryingTransport(transport, 0), tmp_path / "third")
    assert restored(opened, point)["vda"] == hosts.truth[point.id]
    assert any(transport.get(pack) == hosts.store.get(pack) for pack in packs)
