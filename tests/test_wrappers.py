"""Limits, places, read-only stores and logs, around any transport."""

from __future__ import annotations

import logging
import threading
import time as clock_of_the_test
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_retry import Time
from vbackup.api import AccessDenied, Interrupted, Level, NotFound, ObjectInfo, Unavailable, clock
from vbackup.testing.transport_contract import TransportContract
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup.wrappers.limit import BURST_SECONDS, LimitedTransport, TokenBucket
from vbackup.wrappers.log import LoggingTransport
from vbackup.wrappers.parallel import ParallelTransport
from vbackup.wrappers.readonly import ReadOnlyTransport
from vbackup_local.transport import Local, LocalOptions

GIB = 1 << 30


def limited(inner, time, upload=None, download=None):
    return LimitedTransport(inner, upload=lambda: upload, download=lambda: download, clock=time.clock, wait=time.wait)


class TestLimitedTransport(TransportContract):
    @pytest.fixture
    def transport(self):
        time = Time()
        return limited(MemoryTransport(), time, GIB, GIB)


class TestParallelTransport(TransportContract):
    @pytest.fixture(params=[1, 3])
    def transport(self, request):
        return ParallelTransport(MemoryTransport(), request.param)


class TestLoggingTransport(TransportContract):
    @pytest.fixture
    def transport(self):
        return LoggingTransport(MemoryTransport(), "main")


RATES = st.floats(1, 1e9)
STEPS = st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 50)), max_size=40)
"""Pauses in seconds, and how many seconds' worth passes then."""


@given(RATES, STEPS)
def test_never_more_passes_than_the_rate_and_a_burst(rate, steps):
    time, passed = Time(), 0
    begun = time.now
    bucket = TokenBucket(lambda: rate, clock=time.clock, wait=time.wait)
    for pause, worth in steps:
        size = int(rate * worth)
        time.now += pause
        bucket.pay(size)
        passed += size
        assert passed <= rate * (time.now - begun + BURST_SECONDS) + 1


@given(RATES, STEPS)
def test_no_longer_is_waited_than_the_bytes_are_due(rate, steps):
    """What does not pause gets its whole rate."""
    time = Time()
    begun = time.now
    bucket = TokenBucket(lambda: rate, clock=time.clock, wait=time.wait)
    for _, worth in steps:
        bucket.pay(int(rate * worth))
    assert time.now - begun <= sum(worth for _, worth in steps) + 1e-3


@given(st.lists(st.tuples(st.none() | RATES, st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=40))
def test_a_rate_that_changes_is_never_exceeded_while_it_applies(steps):
    """An hour of rest apart, so that each rate stands alone; no limit never waits."""
    time = Time()
    now: list[float | None] = [None]
    bucket = TokenBucket(lambda: now[0], clock=time.clock, wait=time.wait)
    for rate, pause, worth in steps:
        now[0], size = rate, int((rate or 1e12) * worth)
        time.now += 3600 + pause
        bucket.pay(0)
        begun = time.now
        bucket.pay(size)
        if rate is None:
            assert time.now == begun
        else:
            assert size <= rate * (time.now - begun + BURST_SECONDS) + 1


def test_a_new_rate_is_noticed_by_who_waits_already():
    time, rate = Time(), [1.0]
    bucket = TokenBucket(lambda: rate[0], clock=time.clock, wait=lambda seconds: night() or time.wait(seconds))

    def night():
        if time.now > 1020:
            rate[0] = None

    bucket.pay(1_000_000)
    assert 1020 < time.now < 1040
    bucket.pay(1_000_000)
    assert time.now < 1040


def test_threads_share_the_rate_and_go_in_turn():
    """Eight threads put eight MiB each at one MiB/s: the clock, which moves when somebody waits, tells how long."""
    time, lock, ends = Time(), threading.Lock(), []
    begun = threading.Barrier(8)

    def wait(seconds):
        with lock:
            return time.wait(seconds / 8)  # all of them wait at once

    bucket = TokenBucket(lambda: 1 << 20, clock=time.clock, wait=wait)

    def put(number):
        begun.wait()
        bucket.pay(8 << 20)
        ends.append(time.now - 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))
    for number, end in enumerate(sorted(ends), 1):
        assert end >= number * 8 - BURST_SECONDS


def test_puts_wait_before_and_gets_after(memory_transport):
    time = Time()
    seen = []
    store = FaultyTransport(memory_transport, fail=lambda number, operation, key: seen.append((operation, time.now)))
    transport = limited(store, time, upload=100, download=50)
    transport.put("a", memoryview(bytes(1000)))
    assert seen == [("put", pytest.approx(1010))]
    assert transport.get("a", 900, 10_000) == bytes(100)
    assert seen[1:] == [("get", pytest.approx(1010))]
    assert time.now == pytest.approx(1011)  # a second's worth had come in meanwhile
    transport.size("a")
    list(transport.list())
    transport.delete("a")
    assert time.now == pytest.approx(1011)


def test_up_and_down_are_separate_and_none_is_no_limit(memory_transport):
    time = Time()
    transport = limited(memory_transport, time, upload=1)
    transport.put("a", b"12345")
    assert time.now == pytest.approx(1005)
    transport.get("a")
    assert time.now == pytest.approx(1005)


def test_close_and_stop_end_the_waiting_for_bandwidth(memory_transport):
    waits = threading.Event()

    def rate():
        waits.set()
        return 1.0

    transport = LimitedTransport(memory_transport, upload=rate, download=rate)
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(transport.put, "a", bytes(1 << 30))
        assert waits.wait(60)
        transport.close()
        with pytest.raises(Interrupted):
            put.result(60)
    stopped = LimitedTransport(memory_transport, upload=rate, download=rate, wait=lambda seconds: True)
    with pytest.raises(Interrupted):
        stopped.put("a", b"123")
    assert list(memory_transport.list()) == []


class Busy:
    """Counts how many are inside at once."""

    def __init__(self, expected):
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._full = threading.Barrier(expected)

    def enter(self, number, operation, key):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self._full.wait(60)  # so many are there at once, or this breaks

    def leave(self, number, operation, key):
        with self._lock:
            self._now -= 1


def test_no_more_are_at_work_than_there_are_places(memory_transport):
    busy = Busy(4)
    memory_transport.put("a", b"1")
    transport = ParallelTransport(FaultyTransport(memory_transport, busy.enter, busy.leave), 4)
    actions = [
        lambda: transport.put("b", b"1"),
        lambda: transport.get("a"),
        lambda: list(transport.list()),
        lambda: transport.size("a"),
    ]
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(action) for action in actions * 10]:
            done.result(60)
    assert busy.most == 4


def test_a_place_is_given_back_after_an_error_and_between_names_of_a_list(memory_transport):
    transport = ParallelTransport(memory_transport, 1)
    for _ in range(3):
        with pytest.raises(NotFound):
            transport.get("a")
    for key in ("a", "b"):
        transport.put(key, b"1")
    for info in transport.list():
        transport.delete(info.key)
    assert list(transport.list()) == []


class Gate:
    """Operations are told of, and end when they are let."""

    def __init__(self):
        self.order = []
        self.arrived = threading.Semaphore(0)
        self.passes = threading.Semaphore(0)

    def enter(self, number, operation, key):
        self.order.append(key)
        self.arrived.release()
        assert self.passes.acquire(timeout=60)


def test_places_are_given_in_the_order_of_asking(memory_transport):
    """With a plain semaphore one reader without a pause keeps a writer out for ever."""
    gate = Gate()
    transport = ParallelTransport(FaultyTransport(memory_transport, gate.enter), 1)
    with ThreadPoolExecutor(9) as pool:
        puts = []
        for number in range(9):
            puts.append(pool.submit(transport.put, f"k{number}", b"1"))
            if number == 0:
                assert gate.arrived.acquire(timeout=60)
            else:
                until(lambda number=number: len(transport._places._waiting) == number)
        gate.passes.release(9)
        for put in puts:
            put.result(60)
    assert gate.order == [f"k{number}" for number in range(9)]


@pytest.mark.parametrize("how", ["close", "stop"])
def test_close_and_stop_end_the_waiting_for_a_place(memory_transport, how):
    gate, stop = Gate(), threading.Event()
    wait = stop.wait if how == "stop" else None
    transport = ParallelTransport(FaultyTransport(memory_transport, gate.enter), 1, wait=wait)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(transport.put, "a", b"1")
        assert gate.arrived.acquire(timeout=60)
        second = pool.submit(transport.put, "b", b"1")
        until(lambda: transport._places._waiting)
        stop.set() if how == "stop" else transport.close()
        with pytest.raises(Interrupted):
            second.result(60)
        gate.passes.release(2)
        first.result(60)
        transport.put("c", b"1")  # whoever gave up holds no place
    assert gate.order == ["a", "c"]


def until(condition):
    deadline = clock_of_the_test.monotonic() + 60
    while not condition():
        assert clock_of_the_test.monotonic() < deadline
        clock_of_the_test.sleep(0.001)


CHANGES = {
    "create": lambda transport: transport.create(),
    "put": lambda transport: transport.put("a", b"2"),
    "put if absent": lambda transport: transport.put("b", b"2", if_absent=True),
    "delete": lambda transport: transport.delete("a"),
    "lock": lambda transport: transport.lock("a", clock.now() + timedelta(days=1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_store_for_reading_is_not_even_asked_for_changes(change):
    memory = MemoryTransport(can_lock=True)
    memory.put("a", b"1")
    store = FaultyTransport(memory)
    with pytest.raises(AccessDenied, match=r"transport main is for reading only .*read_only: true"):
        change(ReadOnlyTransport(store, "main"))
    assert store.operations == 0
    assert (memory.get("a"), memory.locks) == (b"1", {})


def test_a_store_for_reading_is_read(memory_transport):
    memory_transport.put("a", b"123")
    transport = ReadOnlyTransport(memory_transport, "main")
    assert transport.get("a", 1, 1) == b"2"
    assert transport.size("a") == 3
    assert list(transport.list()) == [ObjectInfo("a", 3)]


def test_doctor_lists_a_store_for_reading_and_writes_nothing(tmp_path):
    local = Local(LocalOptions(path=tmp_path))
    local.put("packs/a", b"1")
    before = tmp_path.stat().st_mtime_ns
    (finding,) = ReadOnlyTransport(LoggingTransport(local, "main"), "main").check()
    assert finding.level is Level.OK
    assert "for reading only" in finding.detail
    assert tmp_path.stat().st_mtime_ns == before
    (finding,) = ReadOnlyTransport(Local(LocalOptions(path=tmp_path / "gone")), "main").check()
    assert finding.level is Level.ERROR
    assert "is not there" in finding.detail


class Watch:
    """A clock that goes a quarter of a second a look."""

    now = 0.0

    def __call__(self):
        self.now += 0.25
        return self.now


def test_each_operation_is_logged_and_none_of_its_data(memory_transport, caplog):
    caplog.set_level(logging.INFO, "vbackup.transport")
    store = FaultyTransport(memory_transport, fail=lambda n, o, key: Unavailable("away") if key == "gone" else None)
    transport = LoggingTransport(store, "main", clock=Watch())
    transport.create()
    transport.put("a", memoryview(b"the secret data"))
    assert transport.get("a") == b"the secret data"
    assert transport.get("a", 4, 6) == b"secret"
    assert transport.size("a") == 15
    assert len(list(transport.list())) == 1
    transport.delete("a")
    with pytest.raises(Unavailable):
        transport.get("gone")
    assert [(record.levelname, record.name, record.getMessage()) for record in caplog.records] == [
        ("INFO", "vbackup.transport", f"main: {text}")
        for text in (
            "create: done in 250 ms",
            "put a: 15 bytes in 250 ms",
            "get a: 15 bytes in 250 ms",
            "get a from 4: 6 bytes in 250 ms",
            "size a: 15 bytes in 250 ms",
            "list: 1 objects in 250 ms",
            "delete a: done in 250 ms",
            "get gone: unavailable, away, in 250 ms",
        )
    ]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: LimitedTransport(inner, upload=lambda: None, download=lambda: None),
        lambda inner: ParallelTransport(inner, 1),
        lambda inner: LoggingTransport(inner, "x"),
        lambda inner: ReadOnlyTransport(inner, "x"),
    ],
)
def test_what_a_store_can_do_its_wrappers_can(wrap):
    for can_lock in (False, True):
        inner = MemoryTransport(can_lock=can_lock)
        assert wrap(inner).can_lock is can_lock
        assert wrap(inner).can_put_if_absent is True
        assert wrap(inner).root is None
