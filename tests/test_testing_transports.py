"""The fakes that plugin authors get keep the contracts themselves, and fail where they are told to."""

from __future__ import annotations

import pytest

from vbackup.api import NotFound, Unavailable
from vbackup.testing.transport_contract import TransportContract
from vbackup.testing.transports import FaultyTransport, MemoryTransport


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    def transport(self):
        return MemoryTransport()


class TestFaultyTransportWithoutFaults(TransportContract):
    @pytest.fixture
    def transport(self):
        return FaultyTransport(MemoryTransport())


def at(number):
    return lambda count, operation, key: Unavailable(f"{operation} {key}") if count == number else None


def test_the_fixture_is_there_for_everybody(memory_transport):
    memory_transport.put("a", b"1")
    assert memory_transport.get("a") == b"1"


def test_failing_before_changes_nothing(memory_transport):
    faulty = FaultyTransport(memory_transport, fail=at(2))
    faulty.put("a", b"1")
    with pytest.raises(Unavailable, match="put b"):
        faulty.put("b", b"2")
    assert [info.key for info in faulty.list()] == ["a"]
    assert faulty.operations == 3


def test_failing_after_leaves_what_was_done(memory_transport):
    faulty = FaultyTransport(memory_transport, fail_after=at(1))
    with pytest.raises(Unavailable, match="put a"):
        faulty.put("a", b"1")
    assert faulty.get("a") == b"1"


def test_an_operation_that_failed_by_itself_is_not_failed_again(memory_transport):
    faulty = FaultyTransport(memory_transport, fail_after=at(1))
    with pytest.raises(NotFound):
        faulty.get("a")


def test_a_listing_fails_at_its_end(memory_transport):
    memory_transport.put("a", b"1")
    listing = FaultyTransport(memory_transport, fail_after=at(1)).list()
    assert next(listing).key == "a"
    with pytest.raises(Unavailable):
        next(listing)


def test_faults_see_every_operation_and_its_key(memory_transport):
    seen = []
    faulty = FaultyTransport(memory_transport, fail=lambda *call: seen.append(call))
    faulty.create()
    faulty.put("a", b"1")
    faulty.size("a")
    faulty.get("a")
    list(faulty.list("a"))
    faulty.delete("a")
    assert seen == [
        (1, "create", ""),
        (2, "put", "a"),
        (3, "size", "a"),
        (4, "get", "a"),
        (5, "list", "a"),
        (6, "delete", "a"),
    ]
