"""What a deduplication hit may rest on: only on what the store has, whole, for this run."""

from __future__ import annotations

import pytest

import tests.support
from tests.repository.adversity import CHUNK, damage, disks, first_pack, lab, store, work
from tests.support import back_up, guest, noise, repository, restored
from vbackup.api import Unavailable
from vbackup.repository.layout import pack_key
from vbackup.testing.transports import FaultyTransport, MemoryTransport

__all__ = ["lab", "store"]  # fixtures


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
