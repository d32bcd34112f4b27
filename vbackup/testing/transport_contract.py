"""What every transport must do.

Subclass `TransportContract` in your plugin's tests and override the fixture ``transport``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from vbackup.api import AlreadyExists, Corrupt, Level, NotFound, ObjectInfo, Transport

MIB = 1 << 20
RACERS = 32


class TransportContract:
    """The contract of `vbackup.api.Transport`, as tests."""

    many = 10_000
    """How many objects are listed."""

    @pytest.fixture
    def transport(self) -> Transport:
        """Override: a transport on a place that is there and empty."""
        raise NotImplementedError

    def test_says_what_it_is(self, transport: Transport) -> None:
        """A name and a model of its options."""
        assert transport.name
        assert transport.options.model_json_schema()

    def test_create_leaves_what_is_there(self, transport: Transport) -> None:
        """Making a place that is there is no error and loses nothing."""
        transport.put("a", b"1")
        transport.create()
        assert transport.get("a") == b"1"

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * MIB + 1, 64 * MIB])
    def test_round_trip(self, transport: Transport, size: int) -> None:
        """Objects of any size come back as they were."""
        data = (bytes(range(251)) * (size // 251 + 1))[:size]
        transport.put("packs/some-object", data)
        got = transport.get("packs/some-object")
        assert type(got) is bytes
        assert got == data
        assert transport.size("packs/some-object") == size
        assert list(transport.list()) == [ObjectInfo("packs/some-object", size)]

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))[1:-1]])
    def test_any_buffer(self, transport: Transport, kind: Callable[[bytes], bytes]) -> None:
        """bytes, bytearray and memoryview are taken, and copied: the caller may use its buffer again."""
        data = kind(b"<some data>")
        before = bytes(data)
        transport.put("a", data)
        if isinstance(data, bytearray):
            data[:] = b"something else"
        assert transport.get("a") == before

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, None), (0, 0), (0, 1), (0, 1000), (1, 998), (999, 1), (500, None), (1000, None), (1000, 0)],
    )
    def test_ranges_within(self, transport: Transport, offset: int, length: int | None) -> None:
        """Any range of an object can be read."""
        data = bytes(number % 251 for number in range(1000))
        transport.put("a", data)
        assert transport.get("a", offset, length) == data[offset : None if length is None else offset + length]

    @pytest.mark.parametrize(
        ("offset", "length"), [(0, 5), (2, 2), (3, 1), (3, None), (4, 1), (1 << 40, 1 << 30), (9, 0)]
    )
    def test_ranges_beyond_the_end(self, transport: Transport, offset: int, length: int | None) -> None:
        """Less is returned where the object ends, which is no error, not even for an empty object."""
        transport.put("a", b"abc")
        transport.put("empty", b"")
        assert transport.get("a", offset, length) == b"abc"[offset:][:length]
        assert transport.get("empty", offset, length) == b""

    def test_replaces(self, transport: Transport) -> None:
        """An object is replaced as a whole, by a shorter one too."""
        transport.put("a", b"long " * 1000)
        transport.put("a", b"short")
        assert transport.get("a") == b"short"
        assert transport.size("a") == 5

    def test_not_found(self, transport: Transport) -> None:
        """What is not there says so; neither a part of a name nor a longer one is the object."""
        transport.put("points/machine/one", b"1")
        for key in ("x", "points", "points/machine", "points/machine/on", "points/machine/one/more", "points/x/one"):
            with pytest.raises(NotFound, match=key):
                transport.get(key)
            with pytest.raises(NotFound, match=key):
                transport.get(key, 0, 0)
            with pytest.raises(NotFound, match=key):
                transport.size(key)

    def test_delete(self, transport: Transport) -> None:
        """A deleted object is gone, its neighbours are not, and its name is free again."""
        for key in ("a/b", "a/bc", "a/b-c"):
            transport.put(key, b"1")
        transport.delete("a/b")
        with pytest.raises(NotFound):
            transport.get("a/b")
        assert _keys(transport) == ["a/b-c", "a/bc"]
        transport.put("a/b", b"2", if_absent=transport.can_put_if_absent)
        assert transport.get("a/b") == b"2"

    def test_delete_of_the_missing(self, transport: Transport) -> None:
        """Deleting what is not there is no error, and takes nothing that is named alike."""
        transport.put("a/b/c", b"1")
        for key in ("x", "x/y/z", "a", "a/b", "a/b/c/d"):
            transport.delete(key)
        assert _keys(transport) == ["a/b/c"]

    def test_put_if_absent(self, transport: Transport) -> None:
        """A name that is taken is refused, and the object stays as it was."""
        if not transport.can_put_if_absent:
            return
        transport.put("locks/a", b"first", if_absent=True)
        with pytest.raises(AlreadyExists, match="locks/a"):
            transport.put("locks/a", b"second", if_absent=True)
        assert transport.get("locks/a") == b"first"
        assert _keys(transport) == ["locks/a"]

    @pytest.mark.parametrize("size", [3, 100_000])
    def test_put_if_absent_in_a_race(self, transport: Transport, size: int) -> None:
        """Of many that put at once just one wins, and its bytes are what is there."""
        if not transport.can_put_if_absent:
            return
        for name in ("locks/a", "locks/b", "c"):
            barrier = threading.Barrier(RACERS)

            def race(number: int, name: str = name, barrier: threading.Barrier = barrier) -> int | None:
                barrier.wait()
                try:
                    transport.put(name, bytes([number]) * size, if_absent=True)
                except AlreadyExists:
                    return None
                return number

            with ThreadPoolExecutor(RACERS) as pool:
                winners = [number for number in pool.map(race, range(RACERS)) if number is not None]
            assert len(winners) == 1
            assert transport.get(name) == bytes([winners[0]]) * size

    def test_readers_see_all_or_nothing(self, transport: Transport) -> None:
        """While an object is put and replaced, a reader finds none or a whole one, never a part or a mixture."""
        versions = [bytes([number]) * (number * 40_000 + 1) for number in range(1, 33)]
        written = threading.Event()

        def read() -> set[bytes]:
            seen = set()
            while not written.is_set():
                try:
                    seen.add(transport.get("packs/a"))
                except NotFound:
                    assert not seen, "a replaced object was gone for a moment"
            return seen

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(4)]
            try:
                for version in versions:
                    transport.put("packs/a", version)
            finally:
                written.set()
            seen = set[bytes]().union(*(reader.result() for reader in readers))
        assert seen <= set(versions)
        assert transport.get("packs/a") == versions[-1]

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
        assert _keys(transport) == sorted(keys)
        assert _keys(transport, "a") == ["a/b", "a/b-c/d", "a/bc"]
        assert _keys(transport, "a/b") == ["a/b"]
        assert _keys(transport, "points") == ["points/x-y/1", "points/x/1", "points/x/2"]
        assert _keys(transport, "points/x") == ["points/x/1", "points/x/2"]
        assert _keys(transport, "point") == []
        assert _keys(transport, "points/x/1/2") == []

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
        assert set(_keys(transport)) == set(keys) - {"d", "x"}

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
        """Thousands of objects are all listed, once each; also while the listing is used to delete them."""
        keys = {f"packs/{number % 16:02x}/{number:08x}" for number in range(self.many)}
        some = {key for key in keys if key.startswith("packs/03/")}
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(lambda key: transport.put(key, key[-3:].encode()), keys):
                pass
        assert sorted(transport.list("packs")) == sorted(ObjectInfo(key, 3) for key in keys)
        assert _keys(transport, "packs/03") == sorted(some)
        for info in transport.list("packs/03"):
            transport.delete(info.key)
        assert set(_keys(transport)) == keys - some

    def test_many_threads(self, transport: Transport) -> None:
        """Everything may be called by many threads at once."""

        def work(number: int) -> list[str]:
            for step in range(8):
                transport.put(f"work/{number}/{step}", bytes([number, step]) * 100)
            for step in range(0, 8, 2):
                assert transport.get(f"work/{number}/{step}", 100, 2) == bytes([number, step])
                transport.delete(f"work/{number}/{step}")
            return _keys(transport, f"work/{number}")

        with ThreadPoolExecutor(16) as pool:
            for number, keys in enumerate(pool.map(work, range(32))):
                assert keys == [f"work/{number}/{step}" for step in range(1, 8, 2)]

    def test_check_finds_nothing_wrong(self, transport: Transport) -> None:
        """A place that works is said to work, and looking at it leaves nothing behind."""
        findings = transport.check()
        assert findings
        assert all(finding.what and finding.detail for finding in findings)
        assert not [finding for finding in findings if finding.level is Level.ERROR]
        assert list(transport.list()) == []

    def test_close_twice(self, transport: Transport) -> None:
        """Closing lets go of connections, not of objects; once more is no error."""
        transport.put("a", b"1")
        transport.close()
        transport.close()


def _keys(transport: Transport, prefix: str = "") -> list[str]:
    return sorted(info.key for info in transport.list(prefix))
