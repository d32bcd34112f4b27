"""``vbackup transport test``: what works is said, and each store that does not is found and named."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel

from tests.test_cli import VBACKUP, Outcome, Vbackup, place, ready, vbackup
from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Busy,
    NotFound,
    ObjectInfo,
    Options,
    Transport,
    Unavailable,
    Unsupported,
    clock,
    hookimpl,
)
from vbackup.api.hypervisor import Buffer
from vbackup.jobs.trial import promises
from vbackup.jobs.trial.ground import Ground
from vbackup.registry import Registry
from vbackup.testing.transports import FaultyTransport, MemoryTransport
from vbackup_local.transport import Local, LocalOptions

__all__ = ["place", "ready", "vbackup"]  # fixtures

MIB = 1 << 20
TRIALS = [
    "put, get and delete",
    "object lock",
    "sizes",
    "ranges",
    "names",
    "all or nothing",
    "create-only put",
    "seen elsewhere",
    "durable on return",
    "small objects and listing",
    "large objects",
]


class Strange(FaultyTransport):
    """A store, the same for all connections, behind something that misbehaves; ``type: strange``."""

    name: ClassVar[str] = "strange"
    options: ClassVar[type[BaseModel]] = Options
    store: ClassVar[MemoryTransport]

    def __init__(self, options: Options) -> None:
        super().__init__(self.store)


class IgnoresTheCondition(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self.inner.put(key, data)


class LosesRaces(Strange):
    """Looks whether the name is taken, and then puts: right for one, wrong for many."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._all_have_looked = threading.Barrier(32)

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if if_absent and any(self.inner.list(key)):
            raise AlreadyExists(f"{key} is there")
        if "race" in key:
            self._all_have_looked.wait(60)
        self.inner.put(key, data)


class TakesWhatItCannot(Strange):
    can_put_if_absent = False


class HasNoCondition(Strange):
    can_put_if_absent = False

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if if_absent:
            raise Unsupported(f"{key}: there is no create-only put")
        self.inner.put(key, data)


class LosesPuts(Strange):
    """One in a thousand."""

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if not key.endswith("small-777"):
            self.inner.put(key, data, if_absent=if_absent)


class LosesAllPuts(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        pass


class Truncates(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self.inner.put(key, memoryview(data)[: 8 * MIB], if_absent=if_absent)


class ListsOnePage(Strange):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return itertools.islice(self.inner.list(prefix), 1000)


class ListsTwice(Strange):
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in self.inner.list(prefix):
            yield from [info] * (1 + info.key.endswith("small-5"))


class IgnoresRanges(Strange):
    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(key)[: length if length is None else max(length, 1)]


class FoldsNames(Strange):
    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self.inner.put(key.replace("_", "-"), data, if_absent=if_absent)


class Tears(Strange):
    """Replaces in two steps, with a reader between them."""

    seen = threading.Event()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if key.endswith("replaced"):
            self.inner.put(key, bytes(data)[:100])
            assert self.seen.wait(60)
        self.inner.put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        data = self.inner.get(key, offset, length)
        if len(data) == 100:
            self.seen.set()
        return data


class KeepsTheDeleted(Strange):
    def delete(self, key: str) -> None:
        if key.endswith("first"):
            return
        self.inner.delete(key)


class DeniesDelete(Strange):
    def delete(self, key: str) -> None:
        raise AccessDenied(f"object {key} may not be deleted")


class IsForOneHost(Strange):
    opened = 0

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        type(self).opened += 1
        if self.opened > 1:
            raise Busy("another host has it")


class HidesFromOthers(Strange):
    """Shows to each connection only what was put through it."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._mine: set[str] = set()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self._mine.add(key)
        self.inner.put(key, data, if_absent=if_absent)

    def get(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        if key not in self._mine:
            raise NotFound(f"{key} is not there")
        return self.inner.get(key, offset, length)


class ForgetsLocks(Strange):
    def lock(self, key: str, until: datetime) -> None:
        pass


class Falters(Strange):
    """Fails the first put and delete of some objects, as a store does that is asked too much."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._refused: set[tuple[str, str]] = set()

    def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self._slow_down("put", key)
        self.inner.put(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self._slow_down("delete", key)
        self.inner.delete(key)

    def _slow_down(self, operation: str, key: str) -> None:
        if ("race" in key or key.endswith("-11")) and (operation, key) not in self._refused:
            self._refused.add((operation, key))
            raise Unavailable(f"{operation} {key}: slow down")


Trial = Callable[..., Outcome]


class Plugin:
    def __init__(self, cls: type[Transport]) -> None:
        self._cls = cls

    @hookimpl
    def vbackup_register_transports(self, register):
        register(self._cls)


@pytest.fixture
def strange(place: Path, vbackup: Vbackup, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Runs a trial of a store of that class."""
    load = Registry.load
    (place / "vbackup.yaml").write_text('{"transports": {"odd": {"type": "strange"}}}')

    def trial(cls: type[Strange], *args: str, can_lock: bool = False) -> Outcome:
        def with_strange() -> Registry:
            registry = load()
            registry.register(Plugin(cls), "strange")
            return registry

        monkeypatch.setattr(Registry, "load", with_strange)
        monkeypatch.setattr(Strange, "store", MemoryTransport(can_lock=can_lock), raising=False)
        return vbackup("transport", "test", "odd", "--size", "32", *args)

    return trial


def left() -> list[str]:
    """What is in the strange store."""
    return [info.key for info in Strange.store.list()]


def names(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in store.rglob("*") if path.is_file())


def verdicts(outcome: Outcome) -> dict[str, str]:
    """The verdicts by trial."""
    found = re.findall(r"^(ok|fails|cannot) +([a-z, -]+): ", outcome.out, re.MULTILINE)
    return {name: verdict for verdict, name in found}


def test_a_good_store_is_told_and_left_as_it_was(place: Path, ready: Vbackup) -> None:
    """Beside a live repository, which is whole afterwards."""
    before = names(place / "store")
    outcome = ready("transport", "test", "disk", "--size", "64")
    assert outcome.code == 0, outcome.err
    assert list(verdicts(outcome)) == TRIALS
    assert {name for name, verdict in verdicts(outcome).items() if verdict != "ok"} == {
        "object lock",
        "durable on return",
    }
    assert "create-only put: 32 at once, 1 won: enforced\n" in outcome.out
    assert "large objects: 4 objects of 16 MiB come back" in outcome.out
    assert "disk: at most 88.0 MiB are written below trial/ and read back, then removed\n" in outcome.err
    assert re.search(r"^put of 16 MiB, 8 at once +[0-9.]+ +MiB/s$", outcome.out, re.MULTILINE)
    assert re.search(r"^put of 4 KiB +[0-9.]+ +ms$", outcome.out, re.MULTILINE)
    assert names(place / "store") == before
    assert ready("check", "--read-data").code == 0
    assert ready("run").code == 0
    assert ready("verify").code == 0


def test_no_more_is_written_than_was_announced(strange: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    put = Strange.put

    def count(self: Strange, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        sizes.append(memoryview(data).nbytes)
        put(self, key, data, if_absent=if_absent)

    monkeypatch.setattr(Strange, "put", count)
    outcome = strange(Strange)
    assert outcome.code == 0, outcome.err
    assert "at most 56.0 MiB are written" in outcome.err
    assert 32 * MIB <= sum(sizes) <= 56 * MIB


def test_as_json(strange: Trial) -> None:
    outcome = strange(Strange, "--json")
    assert outcome.code == 0
    told = outcome.json
    assert (told["transport"], told["whole"], told["left"]) == ("odd", True, [])
    assert [trial["name"] for trial in told["trials"]] == TRIALS
    assert {trial["verdict"] for trial in told["trials"]} == {"ok", "cannot"}
    assert all(speed["name"] and speed["unit"] and speed["value"] > 0 for speed in told["speeds"])
    assert len(told["speeds"]) == 10


@pytest.mark.parametrize(
    ("cls", "trial", "said"),
    [
        (IgnoresTheCondition, "create-only put", "the condition is ignored"),
        (LosesRaces, "create-only put", "32 at once, 32 won: not enforced"),
        (TakesWhatItCannot, "create-only put", "says that it has no create-only put, and took one"),
        (LosesPuts, "small objects and listing", "1 of 1100 objects are not there"),
        (ListsOnePage, "small objects and listing", "the listing lacks 1"),
        (ListsTwice, "small objects and listing", "list gave .* twice"),
        (IgnoresRanges, "ranges", "of an object of 1 MiB are other bytes"),
        (FoldsNames, "names", "it is not there"),
        (Tears, "all or nothing", "saw a part, or a mixture"),
        (HidesFromOthers, "seen elsewhere", "for another connection it is not there"),
    ],
)
def test_a_store_that_misbehaves_is_named(strange: Trial, cls: type[Strange], trial: str, said: str) -> None:
    outcome = strange(cls)
    assert outcome.code == 1
    assert {name for name, verdict in verdicts(outcome).items() if verdict == "fails"} == {trial}
    assert re.search(rf"^fails +{trial}: .*{said}.*\n +-> ", outcome.out, re.MULTILINE)
    assert list(verdicts(outcome)) == TRIALS
    assert left() == []


def test_a_store_that_truncates_is_named(strange: Trial) -> None:
    outcome = strange(Truncates)
    assert outcome.code == 1
    failed = [name for name, verdict in verdicts(outcome).items() if verdict == "fails"]
    assert failed == ["sizes", "large objects"]
    assert "an object of 16777216 bytes was put, and 8388608 bytes that differ are read back" in outcome.out
    assert "large objects: 2 of 2 objects of 16 MiB are not there, or hold other bytes" in outcome.out


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (LosesAllPuts, "put returned, and it is not there"),
        (KeepsTheDeleted, "delete returned, and the object is still there"),
        (DeniesDelete, "delete is refused, so nothing else is tried"),
    ],
)
def test_nothing_is_piled_up_where_it_would_stay(strange: Trial, cls: type[Strange], said: str) -> None:
    outcome = strange(cls)
    assert outcome.code == 1
    assert verdicts(outcome) == {TRIALS[0]: "fails"}
    assert said in outcome.out
    assert "nothing else was tried" in outcome.err
    assert len(left()) <= 1


def test_what_cannot_be_removed_is_named(strange: Trial) -> None:
    outcome = strange(DeniesDelete, "--json")
    (key,) = left()
    assert outcome.json["left"] == [f"{key}: object {key} may not be deleted"]
    assert outcome.json["whole"] is False
    assert f"vbackup: warning: odd: not removed: {key}: " in outcome.err


def test_what_is_not_there_and_says_so_is_no_failure(strange: Trial) -> None:
    outcome = strange(HasNoCondition)
    assert outcome.code == 0, outcome.err
    assert verdicts(outcome)["create-only put"] == "cannot"
    assert "create-only put: not there\n" in outcome.out


def test_a_store_for_one_host_at_a_time_is_no_failure(strange: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IsForOneHost, "opened", 0)
    outcome = strange(IsForOneHost)
    assert outcome.code == 0, outcome.err
    assert "seen elsewhere: one host at a time: another host has it" in outcome.out


def test_a_store_that_is_slow_to_answer_is_no_failure(strange: Trial) -> None:
    outcome = strange(Falters)
    assert outcome.code == 0, outcome.err
    assert "create-only put: 32 at once, 1 won, 3 got no answer: enforced" in outcome.out
    assert left() == []


def test_locks_are_tried_and_outlived(strange: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbackup.jobs.trial.promises._LOCK", timedelta(seconds=2))
    outcome = strange(Strange, can_lock=True)
    assert outcome.code == 0, outcome.err
    assert verdicts(outcome)["object lock"] == "ok"
    assert Strange.store.locks
    assert left() == []


def test_locks_that_lock_nothing_are_named(strange: Trial) -> None:
    outcome = strange(ForgetsLocks, can_lock=True)
    assert outcome.code == 1
    assert re.search(r"^fails +object lock: a locked object was deleted", outcome.out, re.MULTILINE)


def test_a_full_store_is_told_and_emptied(place: Path, vbackup: Vbackup) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "vbackup-test", place / "store"], check=True)
    try:
        outcome = vbackup("transport", "test", "disk", "--size", "32")
        assert outcome.code == 1
        assert re.search(r"^fails +large objects: no-space: .*\n +-> free some space", outcome.out, re.MULTILINE)
        assert names(place / "store") == []
    finally:
        subprocess.run(["umount", place / "store"], check=True)


def test_a_place_that_is_not_there_is_not_made(place: Path, vbackup: Vbackup) -> None:
    (place / "store").rmdir()
    outcome = vbackup("transport", "test", "disk")
    assert outcome.code == 1
    assert "is not there" in outcome.err
    assert not (place / "store").exists()
    assert verdicts(outcome) == {}


def test_a_transport_that_only_reads_is_not_written_to(place: Path, vbackup: Vbackup) -> None:
    config = json.loads((place / "vbackup.yaml").read_text())
    config["transports"]["disk"]["read_only"] = True
    (place / "vbackup.yaml").write_text(json.dumps(config))
    outcome = vbackup("transport", "test", "disk")
    assert outcome.code == 1
    assert verdicts(outcome) == {TRIALS[0]: "fails"}
    assert "is for reading only" in outcome.out
    assert list((place / "store").iterdir()) == []


@pytest.mark.parametrize("args", [("nobody",), (), ("disk", "--size", "16"), ("disk", "--size", "x")])
def test_wrong_arguments_end_with_two(place: Path, vbackup: Vbackup, args: tuple[str, ...]) -> None:
    outcome = vbackup("transport", "test", *args)
    assert outcome.code == 2
    assert "at most" not in outcome.err
    assert list((place / "store").iterdir()) == []


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


def test_racers_that_do_not_start_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "_START_SECONDS", 0.01)
    monkeypatch.setattr(promises, "ThreadPoolExecutor", lambda most, name: ThreadPoolExecutor(4, name))
    store = MemoryTransport()
    with pytest.raises(Unavailable, match="32 threads"):
        promises.create_only(Ground(store, store, MemoryTransport, threading.Event()))
