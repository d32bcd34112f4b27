"""Backup and restore through the real engine and repository, over a guest in memory."""

from __future__ import annotations

import contextlib
import random
import threading
from datetime import timedelta

import pytest

from tests.support import back_up, guest, noise, repository, restored
from vbackup.api import AlreadyExists, CaptureLost, Interrupted, Locked, NotFound, WrongKey, clock
from vbackup.api.wrapper import Wrapper
from vbackup.engine.copy import LIED
from vbackup.repository.points import point_key
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

CHUNK = 64 << 10


@pytest.fixture
def store():
    return MemoryTransport()


@pytest.fixture
def target(store, tmp_path):
    made = repository(store, tmp_path)
    made.init()
    yield made
    made.close()


@pytest.fixture
def lab():
    return FakeHypervisor()


def test_every_point_of_a_random_history_restores_bit_for_bit(target, lab):
    """Writes, zeroes and resizes between backups; each point gives back the bytes of its moment."""
    rng = random.Random(7)
    machine = guest(lab, "web", noise(3_000_000, 1), bytes(5_000_001), b"")
    history = []
    for _ in range(25):
        point = back_up(target, lab, "web")
        history.append((point, {key: bytes(disk.data) for key, disk in machine.disks.items()}))
        for disk in machine.disks.values():
            if rng.random() < 0.2:
                disk.resize(rng.randrange(0, 6_000_000))
            for _ in range(rng.randrange(4)):
                if disk.data:
                    at = rng.randrange(len(disk.data))
                    size = min(rng.randrange(1, 300_000), len(disk.data) - at)
                    disk.write(at, bytes(size) if rng.random() < 0.4 else rng.randbytes(size))
    for point, disks in history:
        assert disks == restored(target, point)
    assert target.verify(target.points(), lambda size: None) == []


def test_an_unchanged_machine_costs_a_few_probes_and_stores_no_chunk(target, lab, store):
    guest(lab, "web", noise(8 * CHUNK, 1))
    back_up(target, lab, "web")
    packs = {info.key for info in store.list("packs")}
    point = back_up(target, lab, "web")
    assert point.disks[0].full_reason is None
    assert 0 == point.changed == point.stored
    assert packs == {info.key for info in store.list("packs")}


def test_a_session_asks_for_little(store, tmp_path):
    """Each request to a store far away costs a round trip, and several machines in one run pay these only once."""
    asked = []

    class Counted(Wrapper):
        def around(self, operation, key, action):
            asked.append(f"{operation} {key.split('/')[0]}")
            return super().around(operation, key, action)

    with contextlib.closing(repository(Counted(store), tmp_path)) as target:
        target.init()
        target.points()
        asked.clear()
        with target.writer() as writer:
            writer.check()
    lists = ["condemned", "damaged", "ended", "index", "packs", "points"]
    ends = ["delete sessions"] * 2
    assert sorted(asked) == [*ends, "get ended", *(f"list {each}" for each in lists), *["put sessions"] * 2]
    assert asked[0] == "put sessions"
    assert asked[-2:] == ends
    assert asked.index("list condemned") < asked.index("list packs") < asked.index("list points")


def test_a_change_reads_and_stores_what_changed(target, lab):
    machine = guest(lab, "web", noise(400 * CHUNK, 1))
    first = back_up(target, lab, "web")
    machine.disks["vda"].write(100 * CHUNK, noise(3 * CHUNK, 2))
    point = back_up(target, lab, "web")
    assert point.changed == 3 * CHUNK
    assert point.read <= (3 + len(first.disks[0].samples) + 1) * CHUNK
    assert point.stored < 6 * CHUNK


def test_lost_tracking_reads_everything_stores_little_and_says_why(target, lab):
    machine = guest(lab, "web", noise(100 * CHUNK, 1))
    back_up(target, lab, "web")
    machine.disks["vda"].lost_reason = "the bitmap is gone"
    machine.disks["vda"].write(0, b"x")
    point = back_up(target, lab, "web")
    assert point.disks[0].full_reason == "the bitmap is gone"
    assert point.read == 100 * CHUNK
    assert point.changed == CHUNK
    assert point.stored < 3 * CHUNK
    assert point.warnings == ("disk vda was read in full: the bitmap is gone",)


def test_tracking_that_lies_after_a_rollback_is_found_out(target, lab):
    """The storage goes back to an older state without the bitmap noticing; the probes see it."""
    machine = guest(lab, "web", noise(100 * CHUNK, 1))
    back_up(target, lab, "web")
    old = bytes(machine.disks["vda"].data)
    machine.disks["vda"].write(50 * CHUNK, noise(CHUNK, 2))
    back_up(target, lab, "web")
    machine.disks["vda"].data[:] = old
    point = back_up(target, lab, "web")
    assert point.disks[0].full_reason == LIED
    assert {"vda": old} == restored(target, point)


def test_a_disk_that_was_shrunk_and_grown_back_is_found_out(target, lab):
    """QEMU's bitmap grows clean: what was lost at the end is called unchanged, and reads as zeros."""
    machine = guest(lab, "web", noise(100 * CHUNK, 1) + bytes(50 * CHUNK))
    back_up(target, lab, "web")
    machine.disks["vda"].write(0, b"the samples lie here")
    back_up(target, lab, "web")
    data = machine.disks["vda"].data
    data[80 * CHUNK :] = bytes(len(data) - 80 * CHUNK)
    point = back_up(target, lab, "web")
    assert point.disks[0].full_reason == LIED
    assert restored(target, point) == {"vda": bytes(data)}


def test_equal_disks_of_other_machines_are_stored_once(target, lab):
    content = noise(100 * CHUNK, 1)
    guest(lab, "web", content)
    guest(lab, "twin", content, content)
    back_up(target, lab, "web")
    assert back_up(target, lab, "twin").stored == 0


def test_zeros_cost_nothing_even_on_a_huge_disk(target, lab, store):
    guest(lab, "web", bytes(300_000_000))
    point = back_up(target, lab, "web")
    assert 0 == point.read == point.stored
    assert list(store.list("packs")) == []


def test_a_lost_capture_leaves_no_point_and_no_open_capture(target, lab):
    guest(lab, "web", noise(200 * CHUNK, 1))
    lab.fail_reads = 2
    with pytest.raises(CaptureLost, match="vda"):
        back_up(target, lab, "web")
    assert target.points() == []
    assert lab.open_captures == 0


def test_what_a_dead_run_stored_is_found_again(target, lab, store):
    """Packs that no index lists are adopted by the next run instead of being stored twice."""
    guest(lab, "web", noise(100 * CHUNK, 1))
    back_up(target, lab, "web")
    for info in [*store.list("index"), *store.list("points")]:
        store.delete(info.key)
    assert back_up(target, lab, "web").stored == 0


def test_stop_ends_a_backup_without_a_point(target, lab):
    guest(lab, "web", noise(200 * CHUNK, 1))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        back_up(target, lab, "web", stop=stop)
    assert target.points() == []


def test_files_of_a_machine_come_back(target, lab):
    guest(lab, "web", b"").files = {"nvram": noise(540_672, 3), "tpm": b""}
    point = back_up(target, lab, "web")
    assert noise(540_672, 3) == target.file(point, "nvram")
    assert target.file(point, "tpm") == b""


def test_a_repository_is_made_once(target):
    with pytest.raises(AlreadyExists, match="main"):
        target.init()


def test_a_repository_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(NotFound, match="vbackup init main"):
        repository(MemoryTransport(), tmp_path).points()


def test_a_wrong_key_is_told_from_damage(target, store, tmp_path):
    other = repository(store, tmp_path / "other", secret=b"wrong")
    with pytest.raises(WrongKey):
        other.points()


def test_another_host_without_a_cache_reads_everything(target, lab, store, tmp_path):
    machine = guest(lab, "web", noise(100 * CHUNK + 17, 1))
    back_up(target, lab, "web")
    other = repository(store, tmp_path / "elsewhere")
    assert {"vda": bytes(machine.disks["vda"].data)} == restored(other, other.points()[0])
    other.close()


def test_deleting_one_point_leaves_the_others_whole(target, lab):
    machine = guest(lab, "web", noise(100 * CHUNK, 1))
    first = back_up(target, lab, "web")
    machine.disks["vda"].write(5, b"changed")
    second = back_up(target, lab, "web")
    target.delete([first])
    assert [second] == target.points()
    assert {"vda": bytes(machine.disks["vda"].data)} == restored(target, second)


def test_codecs_may_change_between_runs(store, tmp_path, lab):
    """What was written with other codecs stays readable and is still deduplicated against."""
    repository(store, tmp_path).init()
    machine = guest(lab, "web", noise(50 * CHUNK, 1))
    for number, codecs in enumerate([("zstd", "aes-256-gcm"), ("aes-256-gcm",), (), ("zstd",)]):
        target = repository(store, tmp_path, codecs=codecs)
        machine.disks["vda"].write(number * CHUNK, noise(CHUNK, number))
        point = back_up(target, lab, "web")
        assert {"vda": bytes(machine.disks["vda"].data)} == restored(target, point)
        target.close()


def test_a_point_that_the_store_has_locked_stays_off_the_record_of_what_was_deleted(tmp_path):
    store, lab = MemoryTransport(can_lock=True), FakeHypervisor()
    target = repository(store, tmp_path)
    target.init()
    guest(lab, "web", noise(100_000, 1))
    points = [back_up(target, lab, "web") for _ in range(3)]
    locked = points[0]
    store.lock(point_key(locked.id), clock.now() + timedelta(days=1))
    with pytest.raises(Locked):
        target.delete(points[:2])
    assert [point.id for point in target.points()] == [locked.id, points[2].id]
    assert target.damaged_points() == []
    store.locks.clear()
    store.delete(point_key(locked.id))
    assert [damage.point for damage in target.damaged_points()] == [locked.id]
    target.close()
