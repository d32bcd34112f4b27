"""Names, and listing them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from vbackup.api import Corrupt, ObjectInfo, Transport
from vbackup.testing.transport_contract.base import OnePlace, keys_of


@contextmanager
def _others_at_work(transport: Transport) -> Iterator[None]:
    """Put and delete other objects beside those that are listed."""
    over = threading.Event()

    def work() -> None:
        for number in itertools.count():
            key = f"packs/{number % 16:02x}/other"
            transport.put(key, b"other")
            transport.delete(key)
            if over.is_set():
                return

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        try:
            yield
        finally:
            over.set()
        worker.result()


class ListingContract(OnePlace):
    """A listing is complete or an error."""

    many = 10_000
    """How many objects are listed."""

    def test_an_empty_store_lists_nothing(self, transport: Transport) -> None:
        """Neither as a whole nor under a prefix."""
        assert list(transport.list()) == []
        assert list(transport.list("points")) == []
        assert list(transport.list("points/machine")) == []

    def test_prefixes_are_whole_segments(self, transport: Transport) -> None:
        """A prefix ends where a segment does."""
        keys = ["a/b", "a/bc", "a/b-c/d", "ab", "points/x/1", "points/x/2", "points/x-y/1", "points-old/x"]
        for key in keys:
            transport.put(key, key.encode())
        assert keys_of(transport) == sorted(keys)
        assert keys_of(transport, "a") == ["a/b", "a/b-c/d", "a/bc"]
        assert keys_of(transport, "a/b") == ["a/b"]
        assert keys_of(transport, "points") == ["points/x-y/1", "points/x/1", "points/x/2"]
        assert keys_of(transport, "points/x") == ["points/x/1", "points/x/2"]
        assert keys_of(transport, "point") == []
        assert keys_of(transport, "points/x/1/2") == []

    def test_every_name_that_is_allowed(self, transport: Transport) -> None:
        """All allowed characters, the longest segments, the deepest and the longest keys."""
        keys = [
            *"abcdefghijklmnopqrstuvwxyz0123456789",
            "a-b",
            "a_b",
            "a--",
            "a__",
            "0-",
            "x/abcdefghijklmnopqrstuvwxyz0123456789_-",
            "d/1/2/3/4/5/6/7",
            "z" * 127 + "/" + "9" * 128,
            "/".join("y" * 127 for _ in range(4)),
        ]
        for key in keys:
            if key not in ("d", "x"):  # an object and a directory of one name need not be possible
                transport.put(key, key.encode())
        for info in transport.list():
            assert transport.get(info.key) == info.key.encode()
            assert info.size == len(info.key)
        assert set(keys_of(transport)) == set(keys) - {"d", "x"}

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "a/../b",
            ".a",
            "A",
            "a b",
            "a\n",
            "a\0b",
            "é",
            "a\\b",
            "a/" * 8 + "a",
            "x" * 600,
        ],
    )
    def test_other_names_are_refused(self, transport: Transport, key: str) -> None:
        """Names pass through `checked_key` before the store sees them."""
        with pytest.raises(Corrupt):
            transport.put(key, b"1")
        with pytest.raises(Corrupt):
            transport.get(key)
        with pytest.raises(Corrupt):
            transport.size(key)
        with pytest.raises(Corrupt):
            transport.delete(key)
        if key:
            with pytest.raises(Corrupt):
                list(transport.list(key))
        assert list(transport.list()) == []

    def test_many_objects(self, transport: Transport) -> None:
        """Thousands are all listed, once each: also while others come and go, and while the listing deletes them."""
        keys = {f"packs/{number % 16:02x}/{number:08x}" for number in range(self.many)}
        some = {key for key in keys if key.startswith("packs/03/")}
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(lambda key: transport.put(key, key[-3:].encode()), keys):
                pass
        assert sorted(transport.list("packs")) == sorted(ObjectInfo(key, 3) for key in keys)
        with _others_at_work(transport):
            listed = [info.key for info in transport.list("packs")]
        assert sorted(key for key in listed if not key.endswith("other")) == sorted(keys)
        assert keys_of(transport, "packs/03") == sorted(some)
        for info in transport.list("packs/03"):
            transport.delete(info.key)
        assert set(keys_of(transport)) == keys - some
