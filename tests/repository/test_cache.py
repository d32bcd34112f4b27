"""The local cache: what goes in, many at once, and what is asked of it."""

from __future__ import annotations

import os

import pytest

from vbackup.api import Unavailable
from vbackup.repository.cache import Cache
from vbackup.repository.packs import Entry, Pack


def pack(*ids: bytes, origin: bytes = b"o" * 16) -> Pack:
    entries = [Entry(chunk, 1, 0, 100 * number, 100, 200) for number, chunk in enumerate(ids)]
    return Pack(os.urandom(32), 5000, (origin,), entries)


@pytest.fixture
def cache(tmp_path):
    made = Cache(tmp_path / "cache.sqlite")
    yield made
    made.close()


def test_many_index_objects_at_once_are_as_one_by_one(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("vbackup.repository.cache._LOAD", 10)
    packs = [pack(*(os.urandom(32) for _ in range(7)), origin=os.urandom(16)) for _ in range(9)]
    objects = [(f"index/{number}", packs[number : number + 2]) for number in range(8)]  # most packs are listed twice
    other = Cache(tmp_path / "other.sqlite")
    cache.add_all(iter(objects))
    for index, listed in objects:
        other.add(index, listed)
    ids = [entry.id for each in packs for entry in each.entries]
    assert cache.locate(ids) == other.locate(ids)
    assert {place.pack for places in cache.locate(ids).values() for place in places} == {each.name for each in packs}
    assert cache.packs().keys() == other.packs().keys()
    assert cache.indexes() == {index for index, _ in objects}
    assert cache.indexes_of([packs[3].name]) == {"index/2", "index/3"}
    other.close()


def test_what_was_read_before_the_store_failed_counts(cache):
    first = pack(b"a" * 32)

    def objects():
        yield "index/1", [first]
        raise Unavailable("the store is away")

    with pytest.raises(Unavailable):
        cache.add_all(objects())
    assert cache.indexes() == {"index/1"}
    assert cache.locate([b"a" * 32])[b"a" * 32][0].pack == first.name


def test_a_pack_whose_own_list_differs_is_told_from_one_that_agrees(cache):
    whole = pack(b"a" * 32, b"b" * 32)
    moved = pack(b"c" * 32, b"d" * 32)
    cache.add("index/1", [whole, moved])
    assert cache.agrees(whole)
    assert cache.agrees(pack(b"e" * 32))  # one that the cache does not know
    assert not cache.agrees(whole._replace(entries=whole.entries[:1]))
    assert not cache.agrees(moved._replace(entries=[entry._replace(offset=7) for entry in moved.entries]))
    assert cache.agrees(whole._replace(entries=[*whole.entries, Entry(b"f" * 32, 1, 0, 900, 9, 9)]))
    cache.forget_packs([whole.name])
    assert cache.agrees(whole)
