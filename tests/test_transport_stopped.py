"""Trials that are stopped or killed leave nothing that harms or stays, and wait for nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.commandline import VBACKUP, Vbackup, place, ready, vbackup
from tests.strange_stores import names
from vbackup.api import Unavailable, clock
from vbackup.jobs.trial.ground import Ground
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup_local.transport import Local, LocalOptions

__all__ = ["place", "ready", "vbackup"]  # fixtures


def test_what_a_killed_trial_left_is_removed_after_a_day(
    place: Path, vbackup: Vbackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = Local(LocalOptions(path=place / "store"))
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    monkeypatch.setattr(clock, "now", lambda: now)
    old, young = "20261121t115900", "20261121t120100"
    others = ["trial/mine", "trial/20261101t000000", "trial/20261101t000000-abc-small-1", "trial/20261199t000000-x"]
    for key in (*(f"trial/{time}-{'0' * 16}-small-1" for time in (old, young)), *others):
        local.put(key, b"left")
    assert vbackup("transport", "test", "disk", "--size", "32").code == 0
    assert names(place / "store") == sorted([f"trial/{young}-{'0' * 16}-small-1", *others])


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_trial_that_is_stopped_leaves_nothing(place: Path, sign: signal.Signals) -> None:
    """At any step: here while its objects are being put."""
    with subprocess.Popen(
        [*VBACKUP, "transport", "test", "disk", "--size", "4096"],
        cwd=place,
        env={**os.environ, "VBACKUP_STATE_DIR": str(place / "state")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "small objects" in line:
                break
        process.send_signal(sign)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + sign
    assert "stopping; undoing what was begun" in said
    assert names(place / "store") == []


def test_a_trial_that_was_killed_is_no_trouble_to_anybody(place: Path, ready: Vbackup) -> None:
    with subprocess.Popen(
        [*VBACKUP, "transport", "test", "disk", "--size", "4096"],
        cwd=place,
        env={**os.environ, "VBACKUP_STATE_DIR": str(place / "state")},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "sizes" in line:
                break
        process.kill()
    assert [name for name in names(place / "store") if name.startswith("trial/")]
    assert ready("check", "--read-data").code == 0
    assert ready("run").code == 0
    assert ready("prune").code == 0
    assert ready("verify").code == 0
    assert ready("transport", "test", "disk", "--size", "32").code == 0


def test_a_stopped_trial_waits_for_no_lock() -> None:
    memory, stop = MemoryTransport(can_lock=True), threading.Event()
    ground = Ground(memory, memory, lambda: memory, stop)
    key = ground.key("locked")
    memory.put(key, b"1")
    ground.lock(key, clock.now() + timedelta(days=1))
    memory.put(ground.key("other"), b"1")
    stop.set()
    (remains,) = ground.remove()
    assert remains.startswith(f"{key}: ")
    assert [info.key for info in memory.list()] == [key]


def test_a_store_that_went_away_is_not_asked_for_each_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each question may take a minute."""
    monkeypatch.setattr("vbackup.jobs.trial.ground._STOPPED", 0.0)
    memory, stop, asked = MemoryTransport(), threading.Event(), []

    def away(number: int, operation: str, key: str) -> Unavailable:
        asked.append(key)
        return Unavailable("the server is away")

    ground = Ground(FaultyTransport(memory, away), memory, lambda: memory, stop)
    keys = [ground.key(f"small-{number}") for number in range(1000)]
    stop.set()
    remains = ground.remove()
    assert {line.partition(": ")[0] for line in remains} == {"trial", *keys}
    assert all(line.endswith(": the server is away") for line in remains)
    assert len(asked) <= 20


def test_being_stopped_while_removing_ends_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbackup.jobs.trial.ground._PATIENCE", 100_000.0)
    monkeypatch.setattr("vbackup.jobs.trial.ground._STOPPED", 0.0)
    stop = threading.Event()

    def fail(number: int, operation: str, key: str) -> Exception | None:
        if operation != "delete":
            return None
        stop.set()
        return Unavailable("away")

    store = FaultyTransport(MemoryTransport(), fail=fail)
    place = Ground(store, store, MemoryTransport, stop)
    store.put(place.key("a"), b"1")
    (left,) = place.remove()
    assert "away" in left
