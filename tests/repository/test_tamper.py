"""A hostile or rotten store: whatever it does to an object is detected, named, and never becomes wrong bytes."""

from __future__ import annotations

import json
import random

import pytest

from tests.support import SECRET, back_up, guest, noise, repository, restored
from vbackup.api import Corrupt, NotFound, Unsupported, VBackupError
from vbackup.repository.keys import unlock
from vbackup.repository.points import KIND, get_point, point_key
from vbackup.repository.sealing import Keys
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

CHUNK = 64 << 10


class Site:
    """One repository with two points of a machine, and its bytes."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        target = repository(self.store, tmp_path / "cache")
        target.init()
        machine = guest(self.lab, "web", noise(20 * CHUNK + 100, 1))
        machine.files = {"nvram": noise(1000, 2)}
        self.bytes = {}
        for number in range(2):
            machine.disks["vda"].write(number * CHUNK, noise(100, number))
            point = back_up(target, self.lab, "web")
            self.bytes[point.id] = bytes(machine.disks["vda"].data)
        target.close()

    def open(self):
        """As a host that has no cache."""
        self.tmp_path /= "fresh"
        return repository(self.store, self.tmp_path)

    def keys(self, prefix):
        return sorted(info.key for info in self.store.list(prefix))

    def put(self, key, data):
        self.store.delete(key)
        self.store.put(key, data)

    def outcome(self):
        """What a fresh host sees: (complaints, bytes that restore gave). Only errors of ours may come out."""
        complaints, given = [], {}
        target = self.open()
        try:
            complaints += [d.reason for d in target.verify(target.points(), lambda size: None)]
            complaints += [d.reason for d in target.damaged_points()]
            for point in target.points():
                try:
                    given[point.id] = restored(target, point)["vda"]
                    target.file(point, "nvram")
                except VBackupError as error:
                    complaints.append(error.message)
        except VBackupError as error:
            complaints.append(error.message)
        finally:
            target.close()
        return complaints, given

    def assert_noticed(self, key):
        complaints, given = self.outcome()
        assert complaints, f"nobody noticed what was done to {key}"
        assert any(key in complaint or key.rpartition("/")[2] in complaint for complaint in complaints), complaints
        for point_id, data in given.items():
            assert data == self.bytes[point_id], f"wrong bytes after {key} was changed"


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def every_object(site):
    return [key for prefix in ("repository", "packs", "index", "points") for key in site.keys(prefix)]


def test_untouched_it_is_whole(site):
    assert ([], site.bytes) == site.outcome()


def test_every_flipped_bit_is_noticed_and_named(site):
    """Bits all over each object: headers, blobs, footers, trailers, seals."""
    rng = random.Random(5)
    for key in every_object(site):
        whole = site.store.get(key)
        places = {0, 7, 9, 20, len(whole) - 1, len(whole) - 9, len(whole) - 12, len(whole) - 30}
        places |= {rng.randrange(len(whole)) for _ in range(12)}
        for at in sorted(p for p in places if 0 <= p < len(whole)):
            changed = bytearray(whole)
            changed[at] ^= 1 << rng.randrange(8)
            site.put(key, bytes(changed))
            if key == "repository":
                complaints, given = site.outcome()
                assert (bool(complaints), {}) == (True, given)
            else:
                site.assert_noticed(key)
        site.put(key, whole)
    assert ([], site.bytes) == site.outcome()


def test_every_truncation_is_noticed_and_named(site):
    for key in every_object(site)[1:]:
        whole = site.store.get(key)
        for size in (0, 5, len(whole) // 2, len(whole) - 1):
            site.put(key, whole[:size])
            site.assert_noticed(key)
        site.put(key, whole)


def test_swapped_objects_are_noticed(site):
    """The store answers with another object of the same kind."""
    for prefix in ("packs", "index", "points"):
        one, other = site.keys(prefix)[:2]
        first, second = site.store.get(one), site.store.get(other)
        site.put(one, second)
        site.put(other, first)
        complaints, given = site.outcome()
        assert complaints
        assert all(given[i] == site.bytes[i] for i in given)
        site.put(one, first)
        site.put(other, second)


def test_a_missing_pack_is_named_with_all_that_it_takes_away(site):
    key = max(site.keys("packs"), key=site.store.size)
    site.store.delete(key)
    target = site.open()
    damage = target.verify(target.points(), lambda size: None)
    lost = [d for d in damage if d.disk == "vda" and d.length]
    assert {p.id for p in target.points()} == {d.point for d in lost}
    assert all(d.machine == "web" and key in d.reason for d in lost if "no pack" not in d.reason)
    target.close()


def test_a_missing_pack_is_healed_by_the_next_run(site):
    """Chunks that the machine still has are stored again, for old points too; the run says so."""
    for key in site.keys("packs"):
        site.store.delete(key)
    target = site.open()
    point = back_up(target, site.lab, "web")
    assert any("missing" in warning for warning in point.warnings)
    assert "the restore point before is damaged" in point.disks[0].full_reason
    newest = target.points()[-1]
    assert restored(target, newest) == {"vda": bytes(site.lab.guests["web"].disks["vda"].data)}
    assert target.verify([newest], lambda size: None) == []
    assert back_up(target, site.lab, "web").disks[0].full_reason is None
    target.close()


def test_nothing_is_built_on_a_point_that_lacks_chunks_in_any_later_run(site):
    """Two runs after the loss, a machine that the first of them did not touch is still read in full."""
    data = noise(10 * CHUNK, 9)
    guest(site.lab, "other", data)
    target = site.open()
    packs = set(site.keys("packs"))
    back_up(target, site.lab, "other")
    lost = set(site.keys("packs")) - packs
    site.lab.guests["other"].disks["vda"].write(0, b"new map, old chunks")
    back_up(target, site.lab, "other")
    for key in lost:
        site.store.delete(key)
    back_up(target, site.lab, "web")
    data = bytes(site.lab.guests["other"].disks["vda"].data)
    point = back_up(target, site.lab, "other")
    assert "needs 9 chunks of packs that are missing" in point.disks[0].full_reason
    assert restored(target, point) == {"vda": data}
    target.close()


def test_a_lost_index_is_rebuilt_from_packs(site):
    for key in site.keys("index"):
        site.store.delete(key)
    complaints, given = site.outcome()
    assert ([], site.bytes) == (complaints, given)


def test_a_rotten_cache_is_no_damage(site):
    """Locations in the local cache point to the wrong place; the store is believed instead."""
    import sqlite3

    target = site.open()
    target.verify(target.points(), lambda size: None)
    target.close()
    (file,) = site.tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as db:
        db.execute("UPDATE chunks SET start = start + 1")
    db.close()
    again = repository(site.store, site.tmp_path)
    assert [site.bytes[p.id] for p in again.points()] == [restored(again, p)["vda"] for p in again.points()]
    again.close()


def test_a_cache_that_is_no_database_is_made_anew(site):
    target = site.open()
    assert target.points()
    target.close()
    (file,) = site.tmp_path.glob("*.sqlite")
    file.write_bytes(noise(100_000, 1))
    again = repository(site.store, site.tmp_path)
    assert len(site.bytes) == len(again.points())
    again.close()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0b", "x" * 10_000, "..", ""])
def test_hostile_names_in_a_stored_document_are_refused(site, name):
    """Even with the key: a name that could be taken for a path never gets out of a point."""
    target = site.open()
    described = json.loads(site.store.get("repository"))
    repository_id = bytes.fromhex(described["id"])
    keys = Keys(unlock(site.store, SECRET, repository_id)[1], repository_id)
    point = target.points()[0]
    document = {"point": {**json.loads(point.model_dump_json()), "machine": name}}
    stored = get_point(site.store, point.id)
    sealed = keys.seal(KIND, bytes.fromhex(point.id) + stored.origin, json.dumps(document).encode())
    site.put(point_key(point.id), site.store.get(point_key(point.id)).replace(stored.head, sealed))
    fresh = site.open()
    (damage,) = fresh.damaged_points()
    assert point.id in damage.reason
    assert [point.id] != [p.id for p in fresh.points()]
    target.close()
    fresh.close()


def test_a_store_that_lists_hostile_names_is_not_followed(site, monkeypatch):
    from vbackup.api import ObjectInfo

    listed = MemoryTransport.list
    hostile = ["points/../../x", "points/" + "a" * 600, "index/..", "packs/aa/zz", "points/\0"]

    def lying(self, prefix=""):
        yield from listed(self, prefix)
        yield from (ObjectInfo(key, 1) for key in hostile if key.startswith(prefix))

    monkeypatch.setattr(MemoryTransport, "list", lying)
    complaints, given = site.outcome()
    assert site.bytes == given or complaints


def test_a_newer_format_is_refused_clearly(site):
    document = json.loads(site.store.get("repository"))
    site.put("repository", json.dumps(document | {"format": 2, "something": "new"}).encode())
    with pytest.raises(Unsupported, match="newer format"):
        site.open().points()


def test_lost_key_slots_are_named(site):
    for key in site.keys("keys"):
        site.store.delete(key)
    with pytest.raises(NotFound, match="no key slots"):
        site.open().points()


def test_a_broken_key_slot_is_named(site):
    (key,) = site.keys("keys")
    site.put(key, b"{}")
    with pytest.raises(Corrupt, match=key):
        site.open().points()


def test_a_slot_cannot_ask_for_all_memory(site):
    (key,) = site.keys("keys")
    slot = json.loads(site.store.get(key))
    slot["argon2id"]["memory_kib"] = 1 << 40
    site.put(key, json.dumps(slot).encode())
    with pytest.raises(Corrupt, match="no key slot"):
        site.open().points()
