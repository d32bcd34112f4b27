"""Within a family data is copied as it is stored, by a key that only writes, too; other families share nothing."""

from __future__ import annotations

import pytest

from tests.repository.two_repositories import CHUNK, OTHER, Two, copy_all, two, write_only
from tests.support import CODECS, SECRET, repository
from vbackup.api import AlreadyExists, CodecContext, ConfigError, Corrupt, Unsupported, WrongKey
from vbackup.repository.keys import new_private_key
from vbackup.repository.packs import open_pack
from vbackup.repository.points import get_point, point_key
from vbackup.repository.sealing import ChunkKind
from vbackup.repository.target import Repository
from vbackup.testing.transports import MemoryTransport
from vbackup_aead.codecs import Aes256Gcm

__all__ = ["two"]  # a fixture


def data_blobs(target: Repository) -> dict[bytes, tuple[bytes, bytes]]:
    """Return origin and blob of all chunks of disks and files, by id."""
    store = target._open().store
    found = {}
    for info in store.transport.list("packs"):
        data = store.transport.get(info.key)
        pack = open_pack(data, store.keys, bytes.fromhex(info.key.rpartition("/")[2]))
        for entry in pack.entries:
            found[entry.id] = (pack.origins[entry.origin], data[entry.offset : entry.offset + entry.length])
    return found


class Sealed(Aes256Gcm):
    """Opens nothing but the nodes of disk maps."""

    def decode(self, data, context: CodecContext, max_size):
        assert context.associated[16] == ChunkKind.NODE, "data was decoded"
        return super().decode(data, context, max_size)


def test_within_a_family_data_is_never_decoded_and_stored_byte_for_byte(two, monkeypatch):
    two.live()
    target = two.make(family=True)
    with monkeypatch.context() as patch:
        patch.setitem(CODECS, "aes-256-gcm", Sealed)
        copy_all(two.source, target)
    here, there = data_blobs(two.source), data_blobs(target)
    chunks = {chunk for chunk in here if chunk in there and here[chunk] == there[chunk]}
    ids = {i for point in two.source.points() for content in point.files.values() for i in content["chunks"]}
    for point in two.source.points():
        for disk in point.disks:
            tree = two.source._reader(point, disk.key).map
            ids |= {i.hex() for i in tree.ids(0, tree.shape.chunks) if any(i)}
    assert ids <= {chunk.hex() for chunk in chunks}
    two.assert_whole(target)


def test_a_key_that_only_writes_suffices_to_copy_within_a_family(tmp_path):
    private, public = new_private_key()
    path = tmp_path / "public"
    path.write_bytes(public)
    two = Two(tmp_path)
    two.here = MemoryTransport()
    two.source = write_only(two.here, tmp_path / "writer", SECRET, path)
    two.source.init()
    two.live()
    reader = repository(two.here, tmp_path / "reader", secret=private)
    target = write_only(two.there, tmp_path / "copier", OTHER, path)
    target.init_with_keys_of(reader)
    copy_all(two.source, target)
    with pytest.raises(WrongKey):
        target.description(target.points()[0])
    two.assert_whole(repository(two.there, tmp_path / "far", secret=private))
    far = repository(two.there, tmp_path / "far", secret=private)
    for point, made in zip(reader.points(), far.points(), strict=True):
        assert far.description(made) == reader.description(point)


def test_a_copy_of_a_copy_can_be_read(two, tmp_path):
    two.live(2)
    target = two.make(family=True)
    copy_all(two.source, target)
    third = repository(MemoryTransport(), tmp_path / "third")
    third.init_with_keys_of(target)
    copy_all(target, third)
    two.assert_whole(third)
    assert third.description(third.points()[0]) == two.source.description(two.source.points()[0])


def test_a_store_cannot_hand_out_one_points_description_for_another(two):
    two.live(2)
    target = two.make(family=True)
    copy_all(two.source, target)
    one, other = target.points()
    first, second = get_point(two.there, one.id), get_point(two.there, other.id)
    whole = two.there.get(point_key(one.id))
    two.there.put(point_key(one.id), whole[: len(whole) - len(first.body)] + second.body)
    with pytest.raises(Corrupt, match=one.id):
        target.description(one)
    assert [damage.point for damage in target.verify([one], lambda size: None)] == [one.id]


def test_different_families_share_nothing_that_could_be_recognised(two):
    two.live()
    target = two.make(family=False)
    copy_all(two.source, target)
    assert not target.exchanges_with(two.source)
    assert not data_blobs(two.source).keys() & data_blobs(target).keys()
    objects = [{store.get(info.key) for info in store.list()} for store in (two.here, two.there)]
    assert not objects[0] & objects[1]


def test_a_family_is_made_of_repositories_with_one_chunk_size_by_a_key_that_reads(two, tmp_path):
    with pytest.raises(ConfigError, match="chunk_size"):
        two.destination(chunk_size=2 * CHUNK).init_with_keys_of(two.source)
    _, public = new_private_key()
    path = tmp_path / "public"
    path.write_bytes(public)
    writer = write_only(MemoryTransport(), tmp_path / "writer", SECRET, path)
    writer.init()
    with pytest.raises(WrongKey, match="share"):
        two.destination().init_with_keys_of(writer)
    with pytest.raises(Unsupported):
        two.destination().init_with_keys_of(object())
    assert list(two.there.list()) == []
    made = two.make(family=True)
    assert made.exchanges_with(two.source)
    assert two.source.exchanges_with(made)
    assert made.id != two.source.id
    with pytest.raises(AlreadyExists):
        two.destination().init_with_keys_of(two.source)


def test_after_a_rotation_in_one_of_the_two_data_is_decoded_again(two):
    two.live(2)
    target = two.make(family=True)
    two.source.key_ring().rotate()
    two.source = repository(two.here, two.tmp_path / "again")
    assert not target.exchanges_with(two.source)
    two.back_up()
    copy_all(two.source, target)
    two.assert_whole(target)
