"""Rotation shuts old keys out from what is new and loses nothing, wherever it dies and whoever else rotates."""

from __future__ import annotations

import pytest

from tests.repository.key_site import (
    CHUNK,
    PRIVATE,
    PUBLIC,
    READER,
    WRITER,
    Site,
    put_slot,
    quick,
    site,
    stored_blobs,
    written,
)
from tests.support import SECRET, back_up, guest, noise, restored
from vbackup.api import Busy, Corrupt, Unavailable, WrongKey
from vbackup.repository import keys
from vbackup.repository.keys import new_private_key
from vbackup.repository.sealing import ChunkKind, Keys
from vbackup.testing.transports import FaultyTransport

__all__ = ["quick", "site", "written"]  # fixtures


def test_rotation_shuts_old_keys_out_from_new_packs_and_loses_nothing(written):
    old = written.unlocked()
    written.ring().add_secret(READER, "colleague", read=True)
    packs = {info.key for info in written.store.list("packs")}
    done = written.ring().rotate()
    assert [(slot.type, slot.label, slot.state) for slot in done.sealed] == [
        ("key-file", "init", "good"),
        ("recipient", "safe", "good"),
    ]
    assert sorted(slot.label for slot in done.dropped) == ["backup host", "colleague"]
    assert done.left == ()
    for secret in (WRITER, READER):
        with pytest.raises(WrongKey):
            written.open(secret).points()

    written.ring().add_secret(WRITER, "backup host", read=False)
    written.machine.disks["vda"].write(20 * CHUNK, noise(3 * CHUNK, 4))
    point = back_up(written.open(WRITER, host="new"), written.lab, "web")
    assert point.changed == 3 * CHUNK
    fresh = {info.key for info in written.store.list("packs")} - packs
    assert fresh
    seen = 0
    for entry, _, origin in stored_blobs(written):
        if origin.generation == old.generation:
            Keys(old, written.id).open_secret(origin.session, origin.generation, origin.sealed)
            continue
        with pytest.raises(WrongKey, match="which this key does not have"):
            Keys(old, written.id).open_secret(origin.session, origin.generation, origin.sealed)
        forced = Keys(old.model_copy(update={"seeds": {origin.generation: old.seeds[old.generation]}}), written.id)
        with pytest.raises(Corrupt):
            forced.open_secret(origin.session, origin.generation, origin.sealed)
        seen += entry.kind == ChunkKind.DATA
    assert seen == 3
    for secret in (SECRET, PRIVATE):
        reader = written.open(secret, host="safe")
        assert restored(reader, written.points[0]) == {"vda": written.content[0]}
        assert restored(reader, point) == {"vda": bytes(written.machine.disks["vda"].data)}


def test_a_writer_that_was_open_during_a_rotation_does_no_harm(written):
    writer = written.open(WRITER)
    writer.points()
    written.ring().rotate()
    written.machine.disks["vda"].write(0, noise(CHUNK, 5))
    point = back_up(writer, written.lab, "web")
    for secret in (SECRET, PRIVATE):
        assert restored(written.open(secret, host="safe"), point) == {"vda": bytes(written.machine.disks["vda"].data)}


@pytest.mark.parametrize("secret", [SECRET, PRIVATE, b"correct horse"], ids=["key-file", "private-key", "passphrase"])
def test_a_rotation_keeps_the_key_in_use_whatever_it_is(written, secret):
    if secret == b"correct horse":
        written.ring().add_secret(secret, "words", read=True)
    done = written.ring(secret).rotate()
    assert [slot.in_use for slot in done.sealed].count(True) == 1
    assert written.unlocked(secret).generation == 2
    assert sum(slot.type == "recipient" for slot in written.ring(secret).slots()) == 1
    assert restored(written.open(secret, host="other"), written.points[0]) == {"vda": written.content[0]}


def test_a_recipient_that_may_only_write_stays_one(written):
    private, public = new_private_key()
    written.ring().add_recipient(public, "host with a key pair", read=False)
    written.ring().rotate()
    ring = written.unlocked(private.strip())
    assert (ring.generation, ring.seeds) == (2, {})


class Died(Exception):  # noqa: N818
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_rotation_that_dies_anywhere_leaves_a_repository_that_opens(tmp_path, after):
    """Killed before or after each operation: the key in use opens, old points restore, and it can be done again."""
    number = 0
    while True:
        number += 1
        site = Site(tmp_path / str(number))
        site.open().init()
        site.ring().add_secret(WRITER, "backup host", read=False)
        site.ring().add_recipient(PUBLIC, "safe", read=True)
        guest(site.lab, "web", noise(3 * CHUNK, 1))
        point = back_up(site.open(), site.lab, "web")
        ring = site.open(store=(store := FaultyTransport(site.store))).key_ring()
        start = store.operations

        def fault(operation, name, key, at=start + number):
            return Died() if operation == at else None

        setattr(store, "_fail_after" if after else "_fail", fault)
        try:
            ring.rotate()
        except Died:
            pass
        else:
            site.close()
            break
        survives(site, point, number)
        site.close()
    assert number > 10


def survives(site, point, number):
    content = {"vda": noise(3 * CHUNK, 1)}
    before = site.unlocked()
    assert restored(site.open(host="a"), point) == content
    later = back_up(site.open(host="b"), site.lab, "web")
    again = site.ring().rotate()
    assert again.left == ()
    assert len(site.slots()) == len(again.sealed)
    after = site.unlocked()
    assert after.generation == before.generation + 1
    assert before.seeds.items() <= after.seeds.items()
    for each in (point, later):
        assert restored(site.open(host="c"), each) == content


def test_a_store_that_fails_in_a_rotation_is_an_error_and_no_loss(written):
    def fail(operation, name, key):
        return Unavailable("the store is away") if name == "delete" else None

    with pytest.raises(Unavailable):
        written.ring(store=FaultyTransport(written.store, fail)).rotate()
    assert written.unlocked().generation == 2
    assert restored(written.open(PRIVATE, host="safe"), written.points[1]) == {"vda": written.content[1]}


def test_two_that_rotate_at_once_remove_nothing_of_each_other(written):
    written.ring().add_secret(READER, "colleague", read=True)
    before = set(written.slots())

    def meanwhile(operation, name, key):
        if name == "put":
            for each, slot in copied.items():
                written.store.put(each, slot)

    elsewhere = Site(written.path / "fork")
    for info in written.store.list("keys"):
        elsewhere.store.put(info.key, written.store.get(info.key))
    elsewhere.store.put("repository", written.store.get("repository"))
    elsewhere.ring(READER).rotate()
    copied = {key: elsewhere.store.get(key) for key in elsewhere.slots() if key not in before}
    elsewhere.close()
    with pytest.raises(Busy, match="at the same time"):
        written.ring(store=FaultyTransport(written.store, meanwhile)).rotate()
    assert before <= set(written.slots())
    for host, secret in {"one": SECRET, "other": READER}.items():  # each is held to the key pair that it has seen
        assert restored(written.open(secret, host=host), written.points[0]) == {"vda": written.content[0]}


def test_who_lacks_the_newest_key_pair_does_not_rotate(written):
    """It would seal a key pair of the same number, and nobody would know which is meant."""
    stranger = put_slot(written, keys.wrap(written.unlocked().rotated(), READER, written.id, "ahead"))
    with pytest.raises(WrongKey, match=f"keys/{stranger} has key pair 2"):
        written.ring().rotate()
    assert {slot.id: slot.state for slot in written.ring().slots()}[stranger] == "unknown"
    done = written.ring(READER).rotate()
    assert [slot.label for slot in done.sealed] == ["ahead"]
    assert sorted(slot.label for slot in done.dropped) == ["backup host", "init", "safe"]
