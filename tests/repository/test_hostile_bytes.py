"""A store that gives other bytes, sizes or names: at most an error, never wrong bytes, and nothing that stays."""

from __future__ import annotations

import random

import pytest

from tests.repository.hostile_site import site
from vbackup.api import ObjectInfo
from vbackup.testing.liars import Liar, WrongSizes
from vbackup.testing.transports import FaultyTransport

__all__ = ["site"]  # a fixture

SEED = 3


def cut(rng, store, key, data):
    return data[: rng.randrange(len(data) + 1)]


def another(rng, store, key, data):
    kind = key.partition("/")[0]
    return store.get(rng.choice([info.key for info in store.list(kind)]))


def flipped(rng, store, key, data):
    changed = bytearray(data or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def empty(rng, store, key, data):
    return b""


@pytest.mark.parametrize("kind", ["repository", "keys", "packs", "index", "points", "sessions", "deletions", ""])
@pytest.mark.parametrize("lie", [cut, another, flipped, empty])
@pytest.mark.parametrize("part", [0.05, 1.0])
def test_a_store_that_gives_other_bytes_takes_nothing_away(site, lie, kind, part):
    """It lies always, or now and then, while everything is tried, prunes included; then it tells the truth again."""
    rng = random.Random(SEED)

    def gives(key, data):
        return lie(rng, site.store, key, data) if key.startswith(kind) and rng.random() < part else data

    site.may_be_misled = lie is another and kind in {"packs", ""}
    site.try_everything(site.host("main", Liar(site.store, gives)))
    site.try_everything(site.fresh(Liar(site.store, gives)))
    site.assert_whole()


@pytest.mark.parametrize("size", [lambda s: 0, lambda s: s + 1, lambda s: 1 << 50], ids=["none", "one more", "huge"])
@pytest.mark.parametrize("kind", ["packs", "index", "points", ""])
def test_wrong_sizes_in_listings_take_nothing_away(site, kind, size):
    def lie(key, true):
        return size(true) if key.startswith(kind) else true

    site.try_everything(site.host("main", WrongSizes(site.store, lie)))
    site.try_everything(site.fresh(WrongSizes(site.store, lie)))
    site.assert_whole()


def test_names_that_are_none_are_left_alone(site):
    """Nothing is read, deleted or restored by a name that a store makes up."""
    hostile = [
        "points/../../etc", "points/" + "A" * 32, "points/\0", "packs/zz/zz", "packs/" + "a" * 64, "index/..",
        "keys/..", "condemned/x", "sessions/x/y", "ended/../0", "deletions/%00", "protected/../../x", "damaged/x",
    ]  # fmt: skip

    class Store(FaultyTransport):
        def list(self, prefix=""):
            yield from self.inner.list(prefix)
            yield from (ObjectInfo(key, 5) for key in hostile if key.startswith(prefix))

        def get(self, key, offset=0, length=None):
            touched.append(key)
            if key in hostile:
                return b"hello"[offset:][:length]
            return self.inner.get(key, offset, length)

        def delete(self, key):
            deleted.append(key)
            self.inner.delete(key)

    touched: list[str] = []
    deleted: list[str] = []
    site.try_everything(site.fresh(Store(site.store)))
    assert not {key for key in deleted if key in hostile}
    site.assert_whole()
