"""Objects: what is put is what is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vbackup.api import Level, NotFound, ObjectInfo, Transport
from vbackup.testing.transport_contract.base import MIB, OnePlace, keys_of


class ObjectContract(OnePlace):
    """Putting, getting, replacing and deleting."""

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
        assert keys_of(transport) == ["a/b-c", "a/bc"]
        transport.put("a/b", b"2", if_absent=transport.can_put_if_absent)
        assert transport.get("a/b") == b"2"

    def test_delete_of_the_missing(self, transport: Transport) -> None:
        """Deleting what is not there is no error, and takes nothing that is named alike."""
        transport.put("a/b/c", b"1")
        for key in ("x", "x/y/z", "a", "a/b", "a/b/c/d"):
            transport.delete(key)
        assert keys_of(transport) == ["a/b/c"]

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
