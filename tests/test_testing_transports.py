"""The fakes that plugin authors get keep the contracts themselves, and fail where they are told to; the contracts find
what breaks them.
"""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from vbackup.api import AccessDenied, AlreadyExists, NoSpace, NotFound, Unavailable, Unsupported, VBackupError
from vbackup.testing.transport_contract import (
    FailureContract,
    LockContract,
    ServerContract,
    SilentContract,
    TransportContract,
)
from vbackup.testing.transports import FaultyTransport, MemoryTransport

MIB = 1 << 20
FAILURES = (AssertionError, pytest.fail.Exception, VBackupError)
"""What a test can end with that fails."""


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    def transport(self):
        return MemoryTransport()


class TestFaultyTransportWithoutFaults(TransportContract):
    @pytest.fixture
    def transport(self):
        return FaultyTransport(MemoryTransport())


class WithoutCreate(FaultyTransport):
    can_put_if_absent = False

    def put(self, key, data, *, if_absent=False):
        if if_absent:
            raise Unsupported(f"{key}: no create-only put")
        super().put(key, data)


class TestATransportWithoutCreateOnlyPut(TransportContract):
    many = 100

    @pytest.fixture
    def transport(self):
        return WithoutCreate(MemoryTransport())


class TestMemoryTransportWithLocks(LockContract):
    @pytest.fixture
    def lockable(self):
        return MemoryTransport(can_lock=True)


class MemoryServer:
    """A store that can be killed: while it is away everything fails, also what it was doing."""

    def __init__(self):
        self.memory = MemoryTransport()
        self.away = threading.Event()

    def kill(self):
        self.away.set()

    def start(self):
        self.away.clear()

    def transport(self, cls=FaultyTransport):
        return cls(self.memory, self._answer, self._answer)

    def _answer(self, number, operation, key):
        return Unavailable(f"{operation} {key}: connection refused") if self.away.is_set() else None


class TestMemoryServer(ServerContract):
    @pytest.fixture
    def server(self):
        return MemoryServer()

    @pytest.fixture
    def transport(self, server):
        return server.transport()


class Small(MemoryTransport):
    """Has space for so many bytes."""

    def __init__(self, room):
        super().__init__()
        self._room = room

    def put(self, key, data, *, if_absent=False):
        used = sum(info.size for info in self.list())
        if used + len(data) > self._room:
            raise NoSpace(f"cannot store {key}: full", hint="free some space")
        super().put(key, data, if_absent=if_absent)

    def check(self):
        return FaultyTransport(self).check()


class Bad(FaultyTransport):
    """Everything fails, and looking at it says so."""

    def check(self):
        from vbackup.api import Finding, Level

        return [Finding("place", Level.ERROR, "it does not work")]


def always(kind, **more):
    return lambda number, operation, key: kind(f"{operation} {key} fails", **more)


class TestFailures(SilentContract, FailureContract):
    room = 4

    @pytest.fixture
    def silent(self):
        return Bad(MemoryTransport(), always(Unavailable))

    @pytest.fixture
    def missing(self):
        return Bad(MemoryTransport(), always(Unavailable, hint="mount it", transient=False))

    @pytest.fixture
    def denied(self):
        return Bad(MemoryTransport(), always(AccessDenied, hint="correct the password"))

    @pytest.fixture
    def read_only(self):
        memory = MemoryTransport()
        memory.put("a/b", b"there")
        refused = always(AccessDenied)
        return FaultyTransport(memory, lambda *call: refused(*call) if call[1] in ("put", "delete") else None)

    @pytest.fixture
    def full(self):
        return Small(self.room * MIB)


# -- what the contracts find --------------------------------------------------------------------------------------


class Ignorant(FaultyTransport):
    """Takes the condition and ignores it."""

    def put(self, key, data, *, if_absent=False):
        super().put(key, data)


class Hasty(FaultyTransport):
    """Says that it has no create-only put, and then puts all the same."""

    can_put_if_absent = False


class Racy(FaultyTransport):
    """Looks first and puts then: right for one, wrong for many."""

    def __init__(self, inner):
        super().__init__(inner)
        self._looked = threading.Barrier(32)

    def put(self, key, data, *, if_absent=False):
        if if_absent and any(self.inner.list(key)):
            raise AlreadyExists(f"{key} is there")
        self._looked.wait(60)
        super().put(key, data)


class OnePage(FaultyTransport):
    def list(self, prefix=""):
        yield from list(super().list(prefix))[:1000]


class FreeLock(FaultyTransport):
    """Locks against deleting only."""

    def put(self, key, data, *, if_absent=False):
        self.inner.locks.pop(key, None)
        super().put(key, data, if_absent=if_absent)


class ShorterLock(FaultyTransport):
    def lock(self, key, until):
        self.inner.locks.pop(key, None)
        super().lock(key, until)


class SilentLock(FaultyTransport):
    """Says that it has no locks, and takes them."""

    can_lock = False

    def lock(self, key, until):
        del key, until


def fails(contract, test, *arguments):
    with pytest.raises(FAILURES):
        getattr(contract(), test)(*arguments)


@pytest.mark.parametrize(
    ("cls", "test"),
    [
        (Ignorant, "test_put_if_absent"),
        (Hasty, "test_put_if_absent"),
        (OnePage, "test_many_objects"),
        (SilentLock, "test_no_lock_where_there_are_none"),
    ],
)
def test_transports_that_break_the_contract_are_found(cls, test):
    fails(TransportContract, test, cls(MemoryTransport()))


@pytest.mark.parametrize("cls", [Ignorant, Racy])
def test_races_that_many_win_are_found(cls):
    fails(TransportContract, "test_put_if_absent_in_a_race", cls(MemoryTransport()), 3)


@pytest.mark.parametrize(
    ("cls", "test"), [(FreeLock, "test_a_locked_object_stays_as_it_is"), (ShorterLock, "test_locking_never_shortens")]
)
def test_locks_that_do_not_hold_are_found(cls, test):
    fails(LockContract, test, cls(MemoryTransport(can_lock=True)))


def test_locks_need_their_own_contract():
    fails(TransportContract, "test_no_lock_where_there_are_none", MemoryTransport(can_lock=True))


class ForgetfulServer(MemoryServer):
    """Loses what it was told last."""

    def kill(self):
        super().kill()
        self.memory.delete(max(info.key for info in self.memory.list()))


class EmptyWhenAway(FaultyTransport):
    """Takes a server that is away for an empty store."""

    def list(self, prefix=""):
        with suppress(Unavailable):
            yield from super().list(prefix)


class GivesUp(FaultyTransport):
    """Says for ever what is so for now."""

    def around(self, operation, key, action):
        try:
            return super().around(operation, key, action)
        except Unavailable as error:
            raise Unavailable(error.message, transient=False) from error


def test_servers_that_forget_are_found():
    server = ForgetfulServer()
    fails(ServerContract, "test_what_was_acknowledged_survives_a_kill", server.transport(), server)


def test_a_server_that_is_away_is_not_an_empty_store():
    server = MemoryServer()
    fails(ServerContract, "test_without_a_server", server.transport(EmptyWhenAway), server)


def test_an_outage_is_transient():
    server = MemoryServer()
    fails(ServerContract, "test_without_a_server", server.transport(GivesUp), server)


class HalfWritten(Small):
    """Leaves what it had written when the space ended."""

    def put(self, key, data, *, if_absent=False):
        try:
            super().put(key, data, if_absent=if_absent)
        except NoSpace:
            with suppress(NoSpace):
                super().put(key, data[:1000])
            raise


def test_what_a_full_store_leaves_half_written_is_found():
    place = HalfWritten(4 * MIB + 100_000)
    fails(TestFailures, "test_a_full_place_takes_nothing_and_loses_nothing", place)


def test_an_empty_store_in_the_place_of_a_missing_one_is_found():
    fails(TestFailures, "test_a_missing_place_is_not_an_empty_one", MemoryTransport())


# -- the fakes ----------------------------------------------------------------------------------------------------


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
