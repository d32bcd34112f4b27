"""Trying again: what is repeated, how long, and what is not."""

from __future__ import annotations

import threading

import pytest

from vbackup.api import AccessDenied, AlreadyExists, Interrupted, NotFound, ObjectInfo, Unavailable
from vbackup.testing.transport_contract import TransportContract
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup.wrappers.retry import RetryingTransport


class Time:
    """A clock that only moves when somebody waits."""

    def __init__(self):
        self.now = 1000.0
        self.waits = []

    def clock(self):
        return self.now

    def wait(self, seconds):
        assert seconds > 0
        self.waits.append(seconds)
        self.now += seconds
        return False


def first(times, error=Unavailable):
    """Fail the first so many operations."""
    return lambda number, operation, key: error(f"{operation} {key} number {number}") if number <= times else None


def retrying(inner, time, deadline=900, shorten=lambda low, high: high):
    return RetryingTransport(inner, deadline, clock=time.clock, wait=time.wait, shorten=shorten)


class TestRetryingTransport(TransportContract):
    @pytest.fixture
    def transport(self):
        return RetryingTransport(MemoryTransport(), 900)


class FirstOfEach:
    """Fail the first operation of a kind on a key in each thread."""

    def __init__(self):
        self._failed = set()

    def __call__(self, number, operation, key):
        call = (threading.get_ident(), operation, key)
        if call in self._failed:
            return None
        self._failed.add(call)
        return Unavailable(f"{operation} {key}")


class TestOverAStoreThatFails(TransportContract):
    """The contract holds where everything fails the first time, or is done and the answer lost."""

    many = 1000

    @pytest.fixture(params=["fail", "fail_after"])
    def transport(self, request):
        inner = FaultyTransport(MemoryTransport(), **{request.param: FirstOfEach()})
        return RetryingTransport(inner, 900, wait=lambda seconds: False)


OPERATIONS = {
    "create": lambda transport: transport.create(),
    "put": lambda transport: transport.put("a", b"1"),
    "put if absent": lambda transport: transport.put("b", b"1", if_absent=True),
    "get": lambda transport: transport.get("a", 0, 1),
    "list": lambda transport: list(transport.list()),
    "delete": lambda transport: transport.delete("a"),
    "size": lambda transport: transport.size("a"),
}
operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@pytest.fixture
def memory(memory_transport):
    memory_transport.put("a", b"1")
    return memory_transport


@operations
def test_a_store_that_comes_back_is_waited_for(memory, operation):
    time = Time()
    faulty = FaultyTransport(memory, fail=first(6))
    operation(retrying(faulty, time))
    assert faulty.operations == 7
    assert time.waits == [0.25, 0.5, 1, 2, 4, 8]


@operations
def test_a_store_that_stays_away_is_given_up_at_the_deadline(memory, operation):
    time = Time()
    faulty = FaultyTransport(memory, fail=first(10_000))
    with pytest.raises(Unavailable, match=r"number 8; given up after 20 s of trying again"):
        operation(retrying(faulty, time, deadline=20))
    assert time.waits == [0.25, 0.5, 1, 2, 4, 8, 4.25]  # the last attempt is made at the deadline
    assert faulty.operations == 8


def test_without_patience_an_error_is_as_it_was(memory):
    with pytest.raises(Unavailable, match=r"^get a number 1$"):
        retrying(FaultyTransport(memory, fail=first(1)), Time(), deadline=0).get("a")


@operations
def test_an_error_that_does_not_pass_is_raised_at_once(memory, operation):
    time = Time()
    faulty = FaultyTransport(memory, fail=first(1, AccessDenied))
    with pytest.raises(AccessDenied):
        operation(retrying(faulty, time))
    assert time.waits == []
    assert faulty.operations == 1


def test_an_error_that_does_not_pass_ends_the_waiting(memory):
    errors = {1: Unavailable("away"), 2: AccessDenied("locked out")}
    time = Time()
    with pytest.raises(AccessDenied):
        retrying(FaultyTransport(memory, fail=lambda number, *_: errors.get(number)), time).get("a")
    assert len(time.waits) == 1


def test_transient_is_decided_by_the_error_not_by_its_class(memory):
    time = Time()
    faulty = FaultyTransport(memory, fail=first(1, lambda text: Unavailable(text, transient=False)))
    with pytest.raises(Unavailable):
        retrying(faulty, time).get("a")
    assert (
        retrying(FaultyTransport(memory, fail=first(1, lambda t: AccessDenied(t, transient=True))), time).get("a")
        == b"1"
    )


def test_waits_stay_within_half_a_minute_and_are_spread(memory):
    time = Time()
    ranges = []

    def shorten(low, high):
        ranges.append((low, high))
        return low

    retrying(FaultyTransport(memory, fail=first(10)), time, shorten=shorten).get("a")
    assert ranges[-1] == (15, 30)
    assert time.waits == [low for low, _ in ranges]


def test_the_deadline_counts_for_each_operation(memory):
    time = Time()
    transport = retrying(
        FaultyTransport(memory, fail=lambda number, *_: Unavailable("") if number % 5 else None), time, 5
    )
    for _ in range(10):
        assert transport.get("a") == b"1"
    assert time.now > 1020


def test_a_slow_operation_that_fails_does_not_use_up_the_deadline(memory):
    """Ten minutes of a dying connection still leave time to try again."""
    time = Time()

    def slow(number, operation, key):
        if number == 1:
            time.now += 1000
            return Unavailable("timed out")
        return None

    assert retrying(FaultyTransport(memory, fail=slow), time, deadline=60).get("a") == b"1"


def test_a_create_that_meets_its_own_success_has_succeeded(memory):
    transport = retrying(FaultyTransport(memory, fail_after=first(1)), Time())
    transport.put("new", memoryview(b"mine"), if_absent=True)
    assert memory.get("new") == b"mine"


@pytest.mark.parametrize("there", [b"other", b"mine, longer", b""])
def test_a_create_that_meets_other_bytes_on_a_retry_has_lost(memory, there):
    memory.put("new", there)
    with pytest.raises(AlreadyExists):
        retrying(FaultyTransport(memory, fail=first(1)), Time()).put("new", b"mine", if_absent=True)
    assert memory.get("new") == there


def test_a_create_that_meets_equal_bytes_at_once_has_lost(memory):
    memory.put("new", b"mine")
    with pytest.raises(AlreadyExists):
        retrying(FaultyTransport(memory), Time()).put("new", b"mine", if_absent=True)


def test_a_lost_create_whose_rival_is_gone_has_still_lost(memory):
    class Gone(FaultyTransport):
        def get(self, key, offset=0, length=None):
            raise NotFound(key)

    memory.put("new", b"mine")
    with pytest.raises(AlreadyExists):
        retrying(Gone(memory, fail=first(1)), Time()).put("new", b"mine", if_absent=True)


def test_who_may_not_read_is_told_that_it_exists(memory):
    """Whose it is cannot be told: that two have won must not be believed."""

    class PutsOnly(FaultyTransport):
        def get(self, key, offset=0, length=None):
            raise AccessDenied(key)

    with pytest.raises(AlreadyExists):
        retrying(PutsOnly(memory, fail_after=first(1)), Time()).put("new", b"mine", if_absent=True)


def test_looking_at_ones_own_success_is_retried_too(memory):
    """put (answer lost), put (exists), get (fails), put (exists), get."""
    errors = {1: Unavailable("answer lost"), 3: Unavailable("away")}
    faulty = FaultyTransport(memory, fail_after=lambda number, *_: errors.get(number))
    time = Time()
    retrying(faulty, time).put("new", b"mine", if_absent=True)
    assert memory.get("new") == b"mine"
    assert len(time.waits) == 2


def test_a_listing_that_breaks_off_yields_everything_once(memory):
    memory.put("b", b"22")
    faulty = FaultyTransport(memory, fail_after=first(2))
    assert sorted(retrying(faulty, Time()).list()) == [ObjectInfo("a", 1), ObjectInfo("b", 2)]


def test_a_listing_that_cannot_be_finished_yields_nothing(memory):
    listing = retrying(FaultyTransport(memory, fail_after=first(10_000)), Time(), deadline=3).list()
    with pytest.raises(Unavailable):
        next(listing)


def test_close_ends_waits(memory):
    begun = threading.Event()

    def fail(number, operation, key):
        begun.set()
        return Unavailable("away")

    transport = RetryingTransport(FaultyTransport(memory, fail=fail), 900, shorten=lambda low, high: 800.0)
    errors = []

    def read():
        try:
            transport.get("a")
        except Unavailable as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(60)
    transport.close()
    thread.join(60)
    assert not thread.is_alive()
    assert len(errors) == 1


def slow_down(*seconds):
    """Fail the first operations with what the store asks for."""
    return lambda number, *_: (
        Unavailable("slow down", retry_after=seconds[number - 1]) if number <= len(seconds) else None
    )


@operations
def test_a_store_is_left_alone_as_long_as_it_asks(memory, operation):
    time = Time()
    operation(retrying(FaultyTransport(memory, fail=slow_down(7, 0.1, 100)), time))
    assert time.waits == [7, 0.5, 100]  # never shorter than without being asked


def test_what_a_store_asks_for_ends_at_the_deadline(memory):
    time = Time()
    faulty = FaultyTransport(memory, fail=slow_down(*[3600] * 10))
    with pytest.raises(Unavailable, match="slow down; given up after 60 s"):
        retrying(faulty, time, deadline=60).get("a")
    assert time.waits == [60]
    assert faulty.operations == 2


def test_all_operations_heed_what_one_was_told(memory):
    time = Time()
    begun = []
    faulty = FaultyTransport(memory, fail=lambda number, *_: begun.append(time.now) or slow_down(50)(number))
    transport = retrying(faulty, time)
    told = threading.Thread(target=transport.get, args=("a",), daemon=True)

    waiting = threading.Event()

    def wait(seconds):
        if threading.current_thread() is told:
            waiting.set()
            return not released.wait(60)
        return time.wait(seconds)

    released = threading.Event()
    transport._wait = wait
    told.start()
    assert waiting.wait(60)
    assert transport.get("a") == b"1"  # in another thread, and not before 50 s have gone
    assert begun == [1000, 1050]
    released.set()
    told.join(60)
    assert begun == [1000, 1050, 1050]
    transport.size("a")
    assert time.waits == [50]


def test_being_stopped_ends_the_waiting_for_a_store_that_asked_for_it(memory):
    time = Time()
    transport = retrying(FaultyTransport(memory, fail=slow_down(50)), time)
    transport._wait = lambda seconds: True
    with pytest.raises(Unavailable, match=r"slow down$"):
        transport.get("a")
    with pytest.raises(Interrupted):
        transport.get("a")


def test_each_retry_is_logged_with_its_reason(memory, caplog):
    retrying(FaultyTransport(memory, fail=first(2)), Time()).get("a")
    assert [record.getMessage() for record in caplog.records] == [
        "get a failed, trying again in 0.2 s: get a number 1",
        "get a failed, trying again in 0.5 s: get a number 2",
    ]
