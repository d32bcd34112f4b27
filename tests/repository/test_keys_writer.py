"""A key that only writes backs up, lists, prunes and protects, and opens nothing of what is stored."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.repository.key_site import CHUNK, PRIVATE, READER, WRITER, quick, site, stored_blobs, written
from tests.support import back_up, codec, guest, noise, restored
from vbackup.api import Corrupt, PruneOrder, WrongKey
from vbackup.repository import hybrid
from vbackup.repository.chunks import Chain, Origin
from vbackup.repository.keys import new_key_file, new_private_key
from vbackup.repository.points import get_point
from vbackup.repository.sealing import ChunkKind, Keys, Ring, derive

__all__ = ["quick", "site", "written"]  # fixtures


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
