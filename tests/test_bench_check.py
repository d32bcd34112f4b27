"""The guard against regressions of speed: what it counts now, and how it compares."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.bench.counts import guard
from tests.bench.counts.compare import compare, report
from tests.bench.counts.counting import Calls, CountingTransport
from vbackup.testing.transports import MemoryTransport

BASELINE = {
    "full: read": 200 << 20,
    "full: sent": 100 << 20,
    "full: put": 8,
    "full: get": 100,
    "full: calls a chunk": 60.0,
    "large disk: restore: memory": 200 << 20,
}


def test_the_benchmark_runs() -> None:
    command = [sys.executable, "-m", "tests.bench", "--small", "--rounds", "1", "--only", "startup"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "| vbackup --help | at most 0.15 s |" in said


def test_nothing_got_worse() -> None:
    found = [each for each in guard.differences(guard.counted("calls")) if each.is_worse]
    assert not found, report(found)


@pytest.mark.parametrize(
    ("what", "same", "worse"),
    [
        ("full: read", (200 << 20) + (512 << 10), (201 << 20)),
        ("full: sent", 101 << 20, 103 << 20),
        ("full: put", 8, 9),
        ("full: get", 112, 113),
        ("full: calls a chunk", 66.0, 66.1),
        ("large disk: restore: memory", 230 << 20, 231 << 20),
    ],
)
def test_a_count_may_be_a_little_higher_and_no_more(what: str, same: float, worse: float) -> None:
    assert compare(BASELINE, BASELINE | {what: same}) == []
    (found,) = compare(BASELINE, BASELINE | {what: worse})
    assert (found.what, found.is_worse) == (what, True)


def test_what_got_worse_is_told_apart_from_what_got_better() -> None:
    found = compare(BASELINE, BASELINE | {"full: put": 10, "full: calls a chunk": 30.0})
    assert [(each.what, each.is_worse) for each in found] == [("full: put", True), ("full: calls a chunk", False)]
    worse, better = report(found).split("### Better")
    assert "| full: put | 8 | 10 | +25% |" in worse
    assert "| full: calls a chunk | 60 | 30 | -50% |" in better


def test_a_count_that_is_new_or_gone_is_told_and_no_regression() -> None:
    found = compare({"full: put": 8, "full: lock": 1}, {"full: put": 8, "full: delete": 0})
    assert [(each.what, each.is_worse) for each in found] == [("full: lock", False), ("full: delete", False)]


def test_a_baseline_of_another_python_only_bounds_from_above(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guard, "BASELINE", tmp_path / "baseline.json")
    guard.update({"full: calls a chunk": 60.0, "full: put": 8})
    assert len(guard.differences({"full: calls a chunk": 50.0, "full: put": 9})) == 2
    monkeypatch.setattr("platform.python_version_tuple", lambda: ("3", "99", "0"))
    (found,) = guard.differences({"full: calls a chunk": 50.0, "full: put": 9})
    assert found.what == "full: put"


def test_operations_and_bytes_of_a_store_are_counted() -> None:
    store = CountingTransport(MemoryTransport())
    store.put("a", b"12345")
    store.get("a", 1, 2)
    assert list(store.list()) != []
    store.delete("a")
    assert store.counts == {"put": 1, "sent": 5, "get": 1, "fetched": 2, "list": 1, "delete": 1}


def test_calls_of_all_threads_are_counted() -> None:
    def work() -> None:
        for _ in range(1000):
            nothing()

    def nothing() -> None:
        """Be called."""

    calls = Calls()
    try:
        threads = [threading.Thread(target=work) for _ in range(2)]
        calls.take()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        made = calls.take()
    finally:
        calls.stop()
    assert 2000 <= made < 2300  # those that threads themselves are made of
