"""Key slots: every type opens the repository until it is removed, and none that is damaged or forged is believed."""

from __future__ import annotations

import pytest

from tests.repository.key_site import PRIVATE, PUBLIC, READER, WRITER, put_slot, quick, site, written
from tests.support import SECRET
from vbackup.api import AlreadyExists, ConfigError, Corrupt, KeyHolder, NotFound, WrongKey
from vbackup.repository import keys
from vbackup.repository.documents import put_document
from vbackup.repository.keys import MAX_SLOTS, Slot, new_key_file, new_private_key, public_of
from vbackup.repository.removals import Removal
from vbackup.repository.sealing import Keys, Ring

__all__ = ["quick", "site", "written"]  # fixtures


def test_the_target_says_that_it_has_keys(site):
    assert isinstance(site.open(), KeyHolder)


def test_every_type_of_key_opens_the_repository(site):
    ring = site.ring()
    ring.add_secret(b"correct horse", "", read=True)
    ring.add_secret(READER, "spare", read=True)
    ring.add_recipient(PUBLIC, "safe", read=True)
    listed = {slot.type + slot.label: slot for slot in ring.slots()}
    assert listed.keys() == {"key-fileinit", "passphrase", "key-filespare", "recipientsafe"}
    assert all(slot.may_read and slot.state == "good" for slot in listed.values())
    assert [slot.label for slot in listed.values() if slot.in_use] == ["init"]
    assert listed["recipientsafe"].fingerprint
    for secret in (b"correct horse", READER, PRIVATE):
        assert site.unlocked(secret) == site.unlocked()
        assert site.open(secret).points() == []


def test_a_removed_key_opens_nothing_and_a_wrong_one_neither(site):
    added = site.ring().add_secret(READER, "", read=True)
    assert site.open(READER).points() == []
    assert site.ring().remove(added.id[:6]).id == added.id
    for secret in (READER, b"wrong", PRIVATE):
        with pytest.raises(WrongKey, match="opens none of the repository's 1 key slots"):
            site.open(secret).points()
    assert site.open().points() == []


def test_a_removed_slot_that_is_put_back_opens_nothing_and_gets_no_new_key_pair(site):
    added = site.ring().add_recipient(PUBLIC, "gone", read=True)
    data = site.store.get(f"keys/{added.id}")
    site.ring().remove(added.id)
    for name in (added.id, "0" * 32):
        site.store.put(f"keys/{name}", data)
    with pytest.raises(WrongKey, match="was removed"):
        site.open(PRIVATE, host="there").points()
    assert [slot.state for slot in site.ring().slots() if slot.label == "gone"] == ["removed", "removed"]
    again = site.ring().add_recipient(PUBLIC, "back", read=True)
    assert site.ring(PRIVATE).slots()[-1].id == again.id
    assert [slot.id for slot in site.ring(PRIVATE).slots() if slot.in_use] == [again.id]
    site.ring().remove(again.id)
    done = site.ring().rotate()
    assert [slot.label for slot in done.sealed] == ["init"]
    assert {slot.id for slot in done.left} == {added.id, "0" * 32}


def test_a_writer_cannot_make_it_seem_that_a_key_was_removed(site):
    site.ring().add_secret(WRITER, "backup host", read=False)
    writer = Keys(site.unlocked(WRITER), site.id)
    for slot in site.slots().values():
        put_document(site.store, writer, f"removed/{slot['mac']}", Removal(proof="0" * 64))
    assert site.open().points() == []
    assert site.open(WRITER).points() == []


def test_the_key_in_use_and_so_the_last_reader_cannot_be_removed(site):
    ring = site.ring()
    ring.add_secret(WRITER, "", read=False)
    (own,) = [slot for slot in ring.slots() if slot.in_use]
    with pytest.raises(ConfigError, match="nobody may be left"):
        ring.remove(own.id)
    other = ring.add_secret(READER, "", read=True)
    with pytest.raises(ConfigError, match="in use"):
        ring.remove(own.id)
    assert site.ring(READER).remove(own.id).id == own.id
    with pytest.raises(ConfigError, match="in use"):
        site.ring(READER).remove(other.id)


def test_slots_are_named_by_what_they_begin_with(site):
    ring = site.ring()
    for text in ("zz", "", "keys"):
        with pytest.raises(NotFound, match="no key slot"):
            ring.remove(text)
    slot = Slot.model_validate_json(site.store.get(next(iter(site.slots()))))
    for name in ("ab01" + "0" * 28, "ab02" + "0" * 28):
        site.store.put(f"keys/{name}", slot.model_dump_json().encode())
    with pytest.raises(ConfigError, match="could be several"):
        ring.remove("ab0")


def test_a_key_is_added_once(site):
    ring = site.ring()
    with pytest.raises(AlreadyExists, match="opens key slot"):
        ring.add_secret(SECRET, "", read=False)
    ring.add_recipient(PUBLIC, "", read=True)
    with pytest.raises(AlreadyExists, match="for this public key"):
        ring.add_recipient(PUBLIC, "", read=False)
    with pytest.raises(ConfigError, match="private key opens what is sealed"):
        ring.add_secret(PRIVATE, "", read=True)
    with pytest.raises(ConfigError, match="no public key"):
        ring.add_recipient(b"ssh-ed25519 AAAA", "", read=True)
    with pytest.raises(ConfigError, match="at most 128"):
        ring.add_secret(READER, "x" * 129, read=True)
    assert len(site.slots()) == 2


def test_the_65th_slot_is_refused_and_64_work(site):
    ring, last = site.ring(), b""
    for _ in range(MAX_SLOTS - 1):
        last = new_key_file().strip()
        keys.put_slot(site.store, keys.wrap(site.unlocked(), last, site.id))
    with pytest.raises(ConfigError, match="64"):
        ring.add_secret(READER, "", read=True)
    with pytest.raises(ConfigError, match="64"):
        ring.add_recipient(PUBLIC, "", read=True)
    assert site.open(last).points() == []
    assert len(ring.slots()) == MAX_SLOTS


def test_a_damaged_slot_is_shown_and_the_others_open(site):
    site.ring().add_secret(READER, "spare", read=True)
    (spare,) = [key for key, slot in site.slots().items() if slot["label"] == "spare"]
    site.store.put(spare, site.store.get(spare)[:-20])
    (damaged,) = [slot for slot in site.ring().slots() if slot.state == "damaged"]
    assert spare == f"keys/{damaged.id}"
    with pytest.raises(WrongKey, match=f"unreadable slots: {spare}"):
        site.open(READER).points()
    assert site.ring().remove(damaged.id).id == damaged.id


@pytest.mark.parametrize("field", ["label", "may_read", "created", "public", "mac", "generation"])
def test_a_slot_that_was_changed_is_shown_as_forged_and_never_sealed_to(site, field):
    site.ring().add_recipient(PUBLIC, "safe", read=field != "may_read")
    (key,) = [key for key, slot in site.slots().items() if slot["type"] == "recipient"]
    slot = Slot.model_validate_json(site.store.get(key))
    changed = {
        "label": "mine", "may_read": True, "created": "2001-01-01", "mac": "0" * 64, "generation": 0,
        "public": public_of(new_private_key()[0]).hex(),
    }[field]  # fmt: skip
    site.store.put(key, slot.model_copy(update={field: changed}).model_dump_json().encode())
    assert [each.state for each in site.ring().slots() if each.type == "recipient"] == ["forged"]
    done = site.ring().rotate()
    assert [each.type for each in done.sealed] == ["key-file"]
    assert [each.state for each in done.left] == ["forged"]
    assert done.dropped == ()


def test_a_writer_cannot_slip_in_a_recipient_that_a_rotation_would_seal_to(written):
    """It has the secret that MACs come from, but not the one for slots that may read."""
    ring = written.unlocked(WRITER)
    private = new_private_key()[0]
    slot = keys.wrap_to(ring, public_of(private), written.id, "innocent").model_copy(update={"may_read": True})
    slipped = put_slot(written, slot.model_copy(update={"mac": Keys(ring, written.id).mac(unsigned(slot))}))
    assert {each.id: each.state for each in written.ring().slots()}[slipped] == "forged"
    done = written.ring().rotate()
    assert [each.id for each in done.left] == [slipped]
    assert written.unlocked(private.strip()).seeds == {}


def unsigned(slot):
    return slot.model_copy(update={"mac": ""}).model_dump_json().encode()


def test_who_was_shut_out_cannot_slip_in_a_recipient_either(written):
    """An old ring makes slots that are shown as old; nothing is sealed to them."""
    old = written.unlocked()
    written.ring().rotate()
    private = new_private_key()[0]
    slipped = put_slot(written, keys.wrap_to(old, public_of(private), written.id, "innocent"))
    assert {each.id: each.state for each in written.ring().slots()}[slipped] == "old"
    done = written.ring().rotate()
    assert [each.id for each in done.dropped] == [slipped]
    with pytest.raises(WrongKey):
        written.unlocked(private.strip())


def test_a_made_up_ring_for_a_public_key_is_not_believed(written):
    """Anybody can seal to a public key. Then the two contradict each other, and the private key says so."""
    true = written.unlocked(PRIVATE)
    for ring in (Ring.new(), Ring.new(bytes.fromhex(true.write)).rotated().rotated()):
        slipped = put_slot(written, keys.wrap_to(ring, public_of(PRIVATE), written.id))
        with pytest.raises(Corrupt, match="contradict"):
            written.open(PRIVATE, host="safe").points()
        assert written.ring().remove(slipped).id == slipped
    assert written.unlocked(PRIVATE) == true
