"""Hosts that are misled: by who has a key that only writes, by the store, or by their own local files."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest

from tests.support import SECRET, back_up, guest, noise, repository, restored
from vbackup.api import CheckOrder, Corrupt, PruneOrder
from vbackup.repository import hybrid, keys, packs, presence, prune
from vbackup.repository.documents import put_document
from vbackup.repository.points import get_point
from vbackup.repository.presence import Honoured, Presence
from vbackup.repository.sealing import Ring
from vbackup.repository.target import Repository
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import MemoryTransport

CHUNK = 16 << 10
DISK = noise(40 * CHUNK, 1)


class Scene:
    """A repository, and hosts that know it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        self.machine = guest(self.lab, "web", DISK)
        self.admin = self.host("admin")
        self.admin.init()

    def host(self, name: str, secret: bytes = SECRET) -> Repository:
        return repository(self.store, self.path / name, secret=secret, chunk_size=CHUNK, codecs=("aes-256-gcm",))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(prune, "BEAT_SECONDS", 0.02)
    return Scene(tmp_path)


def test_a_writer_cannot_make_points_that_were_seen_count_no_more(scene: Scene) -> None:
    """Its forged records are named; until they are gone the points are damaged, and nothing is pruned."""
    made = [back_up(scene.admin, scene.lab, "web") for _ in range(3)]
    writer = keys.new_key_file().strip()
    scene.admin.key_ring().add_secret(writer, "host", read=False)
    rings = keys.unlock(scene.store, writer, bytes.fromhex(scene.admin.id))[1]
    assert not rings.seeds
    forger = scene.host("host", writer)
    forged = []
    for point in made:
        forged.append(f"ended/{get_point(scene.store, point.id).session.hex()}/{os.urandom(16).hex()}")
        put_document(scene.store, forger._open().keys, forged[-1], Honoured(points=()))
    assert {damage.point for damage in scene.admin.damaged_points()} == {point.id for point in made}
    assert (
        forged[0]
        in scene.admin.damaged_points()[[d.point for d in scene.admin.damaged_points()].index(made[0].id)].reason
    )
    before = {info.key for info in scene.store.list("packs")}
    with pytest.raises(Corrupt, match="never did"):
        scene.admin.prune(PruneOrder(end_silent=True))
    assert {info.key for info in scene.store.list("packs")} == before
    for key in forged:
        scene.store.delete(key)
    again = scene.host("admin")
    assert again.points() == made
    assert restored(again, made[0]) == {"vda": DISK}


def test_a_writer_cannot_have_another_one_seal_to_its_own_key(scene: Scene) -> None:
    private, public = keys.new_private_key()
    theirs = keys.new_key_file().strip()
    ring = scene.admin.key_ring()
    ring.add_recipient(public, "victim", read=False)
    ring.add_secret(theirs, "attacker", read=False)
    back_up(scene.host("victim", private.strip()), scene.lab, "web")
    known = scene.host("attacker", theirs)._open().keys
    forged = Ring(write=known.ring.write, generation=2, public=hybrid.public_key(os.urandom(32)).hex())
    slots = [json.loads(scene.store.get(info.key)) for info in scene.store.list("keys")]
    victim = next(slot for slot in slots if slot["label"] == "victim")
    keys.put_slot(scene.store, keys.wrap_to(forged, bytes.fromhex(victim["public"]), known.repository, "victim"))
    with pytest.raises(Corrupt, match="another key pair"):
        back_up(scene.host("victim", private.strip()), scene.lab, "web")


def test_a_rotation_is_followed_by_who_reads_and_confirmed_by_who_only_writes(scene: Scene) -> None:
    writer = keys.new_key_file().strip()
    scene.admin.key_ring().add_secret(writer, "host", read=False)
    back_up(scene.host("host", writer), scene.lab, "web")
    scene.admin.key_ring().rotate()
    again = scene.host("admin")
    assert len(again.points()) == 1
    again.key_ring().add_secret(writer, "host", read=False)
    with pytest.raises(Corrupt, match="rotated on purpose, remove") as caught:
        scene.host("host", writer).points()
    Path(caught.value.hint.split("remove ")[1].split(" on ")[0]).unlink()
    assert len(scene.host("host", writer).points()) == 1


def test_a_host_holds_on_to_a_repository_from_its_first_look(scene: Scene) -> None:
    """Also to one without points: another one, sealed to the same recipient, is not taken for it."""
    private, public = keys.new_private_key()
    scene.admin.key_ring().add_recipient(public, "admin", read=True)
    assert scene.host("reader", private.strip()).points() == []
    mine = Scene(scene.path / "theirs")
    mine.admin.key_ring().add_recipient(public, "admin", read=True)
    for info in list(scene.store.list()):
        scene.store.delete(info.key)
    for info in mine.store.list():
        scene.store.put(info.key, mine.store.get(info.key))
    with pytest.raises(Corrupt, match="another repository"):
        scene.host("reader", private.strip()).points()


def test_a_memory_that_is_damaged_is_not_taken_for_a_first_look(scene: Scene) -> None:
    scene.admin.points()
    scene.admin.close()
    (scene.path / "admin" / "seen").write_bytes(b"")
    with pytest.raises(Corrupt, match="remove it") as caught:
        scene.host("admin").points()
    assert "seen" in caught.value.message


def test_a_rotten_cache_deletes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks of one pack are said to be in another one: the store knows better."""
    monkeypatch.setattr(packs, "PACK_SIZE", 10 * CHUNK)
    point = back_up(scene.admin, scene.lab, "web")
    scene.admin.close()
    (file,) = (scene.path / "admin").glob("*.sqlite")
    with sqlite3.connect(file) as cache:
        found = cache.execute("SELECT pack FROM chunks GROUP BY pack HAVING max(kind) = 1 ORDER BY pack").fetchall()
        assert cache.execute("UPDATE chunks SET pack = ? WHERE pack = ?", (found[1][0], found[0][0])).rowcount
    scene.host("admin").prune(PruneOrder())
    fresh = scene.host("fresh")
    assert fresh.verify([point], lambda size: None) == []


def test_a_head_that_is_rotten_in_the_cache_is_read_from_the_store(scene: Scene) -> None:
    point = back_up(scene.admin, scene.lab, "web")
    scene.admin.points()
    scene.admin.close()
    (file,) = (scene.path / "admin").glob("*.sqlite")
    with sqlite3.connect(file) as cache:
        cache.execute("UPDATE points SET head = ?", (b"rotten" * 20,))
    again = scene.host("admin")
    assert [each.id for each in again.points()] == [point.id]
    assert again.damaged_points() == []


def test_a_dead_prune_and_a_rotten_condemnation_block_nobody_for_ever(scene: Scene) -> None:
    back_up(scene.admin, scene.lab, "web")
    opened = scene.admin._open()
    dead = Presence(scene.store, opened.keys, os.urandom(16), is_prune=True)
    dead.announce()  # and never another beat
    scene.store.put(f"condemned/{os.urandom(16).hex()}", b"rotten")
    with pytest.raises(Corrupt, match="check --repair"):
        scene.admin.prune(PruneOrder(end_silent=True))
    report = scene.admin.check(CheckOrder(repair=True), lambda size: None)
    assert report.repaired
    scene.admin.prune(PruneOrder())
    back_up(scene.admin, scene.lab, "web")


def test_a_dry_run_writes_nothing_and_foresees_all(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_SIZE", 10 * CHUNK)
    for number in range(4):
        scene.machine.disks["vda"].write(number * 4 * CHUNK, noise(6 * CHUNK, number + 2))
        back_up(scene.admin, scene.lab, "web")
    scene.admin.delete(scene.admin.points()[:3])
    before = {info.key: scene.store.get(info.key) for info in scene.store.list()}
    foreseen = scene.admin.prune(PruneOrder(dry_run=True))
    assert {info.key: scene.store.get(info.key) for info in scene.store.list()} == before
    done = scene.admin.prune(PruneOrder())
    assert (foreseen.freed, foreseen.rewritten) == (done.freed, done.rewritten)
    assert done.freed > done.rewritten > 0
