"""Who can do what with which key, and what happens to keys over the years."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support import SECRET, back_up, codec, guest, noise, repository, restored
from vbackup.api import (
    AlreadyExists,
    Busy,
    ConfigError,
    Corrupt,
    KeyHolder,
    NotFound,
    PruneOrder,
    Unavailable,
    VBackupError,
    WrongKey,
)
from vbackup.repository import hybrid, keys
from vbackup.repository.chunks import Chain, Origin
from vbackup.repository.documents import put_document
from vbackup.repository.keys import MAX_SLOTS, Slot, new_key_file, new_private_key, public_of
from vbackup.repository.packs import read_pack
from vbackup.repository.points import get_point
from vbackup.repository.removals import Removal
from vbackup.repository.sealing import ChunkKind, Keys, Ring, derive
from vbackup.testing.hypervisors import FakeHypervisor
from vbackup.testing.transports import FaultyTransport, MemoryTransport

CHUNK = 64 << 10
WRITER = new_key_file().strip()
READER = new_key_file().strip()
PRIVATE, PUBLIC = new_private_key()
PRIVATE = PRIVATE.strip()
FAST = keys.Argon2(memory_kib=8, iterations=1, lanes=1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Passphrases need no stretching here."""
    monkeypatch.setattr(keys, "PASSPHRASE", FAST)


class Site:
    """A repository in memory, opened with many keys from many hosts."""

    def __init__(self, path):
        self.path = path
        self.store = MemoryTransport()
        self.lab = FakeHypervisor()
        self._opened = []

    def open(self, secret=SECRET, host="here", store=None):
        target = repository(store or self.store, self.path / host, secret=secret)
        self._opened.append(target)
        return target

    def ring(self, secret=SECRET, store=None):
        return self.open(secret, store=store).key_ring()

    @property
    def id(self):
        return bytes.fromhex(self.open().id)

    def unlocked(self, secret=SECRET):
        return keys.unlock(self.store, secret, self.id)[1]

    def slots(self):
        return {key: json.loads(self.store.get(key)) for key in sorted(i.key for i in self.store.list("keys"))}

    def close(self):
        for target in self._opened:
            target.close()


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.open().init()
    yield made
    made.close()


@pytest.fixture
def written(site):
    """The same, where a host that may only write has made two points; the private key is elsewhere."""
    site.ring().add_secret(WRITER, "backup host", read=False)
    site.ring().add_recipient(PUBLIC, "safe", read=True)
    site.machine = guest(site.lab, "web", noise(40 * CHUNK, 1))
    site.machine.files = {"nvram": noise(100_000, 2)}
    target = site.open(WRITER)
    site.points = [back_up(target, site.lab, "web")]
    site.content = [bytes(site.machine.disks["vda"].data)]
    site.machine.disks["vda"].write(10 * CHUNK, noise(2 * CHUNK, 3))
    site.points.append(back_up(target, site.lab, "web"))
    site.content.append(bytes(site.machine.disks["vda"].data))
    return site


def put_slot(site, slot):
    return keys.put_slot(site.store, slot).rpartition("/")[2]


# -- a key that only writes ---------------------------------------------------------------------------------------


def test_a_writer_backs_up_what_changed_and_stores_what_is_new(written):
    second = written.points[1]
    assert second.disks[0].full_reason is None
    assert second.changed == 2 * CHUNK
    assert second.stored < 4 * CHUNK
    assert second.read < 30 * CHUNK


def test_a_writer_deduplicates_on_a_host_that_knows_nothing(written):
    guest(written.lab, "twin", written.content[0], noise(CHUNK, 9))
    point = back_up(written.open(WRITER, host="elsewhere"), written.lab, "twin")
    assert point.disks[0].stored == 0
    assert CHUNK <= point.stored < 3 * CHUNK


def test_the_private_key_reads_all_that_a_writer_wrote(written):
    reader = written.open(PRIVATE, host="safe")
    for point, content in zip(written.points, written.content, strict=True):
        assert restored(reader, point) == {"vda": content}
        assert reader.file(point, "nvram") == noise(100_000, 2)
        assert reader.description(point).name == "web"
    assert reader.verify(reader.points(), lambda size: None) == []


def stored_blobs(site):
    """Every blob in the store: kind, id, size, bytes, the origin it comes from."""
    ring = Keys(site.unlocked(WRITER), site.id)
    for info in list(site.store.list("packs")):
        pack = read_pack(site.store, ring, bytes.fromhex(info.key.rpartition("/")[2]))
        data = site.store.get(info.key)
        for entry in pack.entries:
            yield entry, data[entry.offset : entry.offset + entry.length], Origin.decode(pack.origins[entry.origin])


def writers_secrets(ring, site, session):
    """All 32 bytes that follow from what a writer has, by any of the purposes that vbackup derives keys for."""
    write = bytes.fromhex(ring.write)
    holder = Keys(ring, site.id)
    yield write
    yield holder.map_secret(session)
    for purpose in ("family", "seal", "repository object", "session maps", "session", "session key", "slot", "body"):
        for salt in (b"", session, site.id, holder.family):
            yield derive(write, purpose, salt)
    for kind in ChunkKind:
        yield derive(write, f"chunk id {kind.name.lower()}")


def test_a_writer_can_open_no_chunk_of_data_and_no_file_that_is_stored(written):
    """Each blob is tried with every key that follows from the writer's ring; the reader's ring opens them all."""
    ring, reader = written.unlocked(WRITER), Keys(written.unlocked(), written.id)
    assert ring.seeds == {}
    writer = Keys(ring, written.id)
    seen = dict.fromkeys(ChunkKind, 0)
    for entry, blob, origin in stored_blobs(written):
        codecs = [codec(name) for name in origin.codecs]
        kind = ChunkKind(entry.kind)
        blind = Chain(writer, codecs, origin, None)
        seen[kind] += 1
        if kind is ChunkKind.NODE:
            assert writer.chunk_id(kind, blind.decode(kind, entry.id, blob, entry.size)) == entry.id
            continue
        with pytest.raises(WrongKey, match="can write and not read"):
            blind.decode(kind, entry.id, blob, entry.size)
        secret = reader.open_secret(origin.session, origin.generation, origin.sealed)
        assert_sealed(written, ring, kind, entry.id, blob, origin, secret)
        plain = Chain(reader, codecs, origin, secret).decode(kind, entry.id, blob, entry.size)
        assert writer.chunk_id(kind, plain) == entry.id
    assert seen[ChunkKind.DATA] == 42
    assert seen[ChunkKind.FILE] == 2
    assert seen[ChunkKind.NODE] >= 2


def assert_sealed(site, ring, kind, chunk_id, blob, origin, true):
    step = origin.codecs.index("aes-256-gcm")
    mask, nonce, payload = blob[0], blob[1:13], blob[13:]
    assert mask >> step & 1
    associated = Keys(ring, site.id).family + bytes((kind, mask & ((2 << step) - 1))) + chunk_id
    AESGCM(derive(true, f"codec {step} aes-256-gcm")).decrypt(nonce, payload, associated)  # the attempt is a fair one
    for secret in writers_secrets(ring, site, origin.session):
        assert hybrid.open_with(secret, origin.sealed, b"vbackup 1 session" + associated[:16] + origin.session) is None
        for key in (secret, derive(secret, f"codec {step} aes-256-gcm")):
            with pytest.raises(InvalidTag):
                AESGCM(key).decrypt(nonce, payload, associated)


class Guessed:
    """Chains whose session secret is a guess."""

    def __init__(self, keys, secret):
        self.keys, self.secret = keys, secret

    def of(self, encoded):
        origin = Origin.decode(encoded)
        return Chain(self.keys, [codec(name) for name in origin.codecs], origin, self.secret)


def test_a_writer_can_open_no_description_of_a_point(written):
    ring, reader = written.unlocked(WRITER), Keys(written.unlocked(), written.id)
    writer = Keys(ring, written.id)
    target = written.open(WRITER)
    for point in written.points:
        with pytest.raises(WrongKey, match="can write and not read"):
            target.description(point)
    catalogue = target._open().catalogue
    for point in written.points:
        origin = Origin.decode(get_point(written.store, point.id).origin)
        for secret in writers_secrets(ring, written, origin.session):
            catalogue._chains = Guessed(writer, secret)
            with pytest.raises(Corrupt, match="seal is broken"):
                target.description(point)
        true = reader.open_secret(origin.session, origin.generation, origin.sealed)
        catalogue._chains = Guessed(writer, true)  # the attempt is a fair one
        assert target.description(point).name == "web"


def test_what_a_writer_is_given_has_no_seeds(site):
    full = site.unlocked()
    assert full.seeds
    assert full.for_writing() == Ring(write=full.write, generation=full.generation, public=full.public)
    assert not Keys(full.for_writing(), site.id).can_read
    site.ring().add_secret(WRITER, "", read=False)
    assert site.unlocked(WRITER) == full.for_writing()


def test_a_writer_lists_prunes_and_protects_and_does_not_read(written):
    writer = written.open(WRITER)
    first, second = written.points
    assert writer.points() == written.points
    writer.protect(second, "audit")
    assert writer.protected() == {second.id: "audit"}
    writer.unprotect(second)
    writer.delete([first])
    report = writer.prune(PruneOrder(end_silent=True))
    report = writer.prune(PruneOrder(end_silent=True))
    assert report.waiting == 0
    read = []
    for attempt in (
        lambda: writer.verify(writer.points(), read.append),
        lambda: restored(writer, second),
        lambda: list(writer.read(second, "vda", [next(iter(writer.extents(second, "vda")))])),
        lambda: writer.file(second, "nvram"),
    ):
        with pytest.raises(WrongKey, match="can write and not read"):
            attempt()
    assert read == []
    assert restored(written.open(PRIVATE), second) == {"vda": written.content[1]}


def test_a_restore_with_a_writers_key_touches_no_hypervisor(written):
    from tests.support import Restore
    from vbackup.api import RestoreRequest

    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was asked for")

    for point in written.points:
        for request in (RestoreRequest(name="again"), RestoreRequest(disks={"vda": written.path / "out"})):
            work = Restore(written.open(WRITER), Untouchable(), None, lambda *progress: None)
            with pytest.raises(WrongKey, match="can write and not read"):
                work.run(point, request)
    assert not (written.path / "out").exists()


def test_a_writer_may_add_writers_and_nothing_more(written):
    ring = written.ring(WRITER)
    other = new_key_file().strip()
    added = ring.add_secret(other, "second host", read=False)
    assert not added.may_read
    assert written.unlocked(other).seeds == {}
    for attempt in (
        lambda: ring.add_secret(READER, "", read=True),
        lambda: ring.add_recipient(new_private_key()[1], "", read=True),
        lambda: ring.remove(added.id),
        ring.rotate,
    ):
        with pytest.raises(WrongKey, match="can write and not read"):
            attempt()
    states = {slot.label: slot.state for slot in ring.slots()}
    assert states == {"init": "unknown", "backup host": "good", "safe": "unknown", "second host": "good"}


# -- slots --------------------------------------------------------------------------------------------------------


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


# -- rotation -----------------------------------------------------------------------------------------------------


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


# -- nothing secret is shown --------------------------------------------------------------------------------------


def test_reprs_and_errors_show_no_secret(written):
    ring = written.unlocked()
    secrets = [ring.write, *ring.seeds.values(), SECRET.decode(), PRIVATE.decode()]
    holder = written.ring()
    shown = [repr(ring), str(ring), repr(Keys(ring, written.id)), repr(holder), repr(holder.slots())]
    shown += [repr(Slot.model_validate(slot)) for slot in written.slots().values()]
    broken = json.loads(ring.model_dump_json()) | {"generation": -1}
    slot = keys.wrap_to(ring, public_of(PRIVATE), written.id)
    sealed = hybrid.seal_to(public_of(PRIVATE), json.dumps(broken).encode(), b"vbackup 1 slot" + written.id)
    other = MemoryTransport()
    keys.put_slot(other, slot.model_copy(update={"wrapped": sealed.hex()}))
    with pytest.raises(Corrupt, match="no key slot can be read") as caught:
        keys.unlock(other, PRIVATE, written.id)
    shown += [everything(caught.value)]
    with pytest.raises(VBackupError) as caught:
        written.open(new_key_file()).points()
    shown += [everything(caught.value)]
    for text in shown:
        assert not [secret for secret in secrets if secret in text]


def everything(error):
    import traceback

    return "".join(traceback.format_exception(error))


def test_the_values_that_are_handed_out_are_plain(site):
    (slot,) = site.ring().slots()
    assert replace(slot, label="x").label == "x"
    assert set(slot.__slots__) == {"id", "type", "label", "created", "may_read", "in_use", "state", "fingerprint"}
