"""``vbackup transport test`` names each store that does not keep a promise, and none that only cannot do more."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.commandline import place, vbackup
from tests.strange_stores import (
    TRIALS,
    DeniesDelete,
    Falters,
    FoldsNames,
    ForgetsLocks,
    HasNoCondition,
    HidesFromOthers,
    IgnoresRanges,
    IgnoresTheCondition,
    IsForOneHost,
    KeepsTheDeleted,
    ListsOnePage,
    ListsTwice,
    LosesAllPuts,
    LosesPuts,
    LosesRaces,
    Strange,
    TakesWhatItCannot,
    Tears,
    Trial,
    Truncates,
    left,
    strange,
    verdicts,
)
from vbackup.api import Unavailable
from vbackup.jobs.trial import promises
from vbackup.jobs.trial.ground import Ground
from vbackup.testing.transports import MemoryTransport

__all__ = ["place", "strange", "vbackup"]  # fixtures


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


def test_racers_that_do_not_start_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promises, "_START_SECONDS", 0.01)
    monkeypatch.setattr(promises, "ThreadPoolExecutor", lambda most, name: ThreadPoolExecutor(4, name))
    store = MemoryTransport()
    with pytest.raises(Unavailable, match="32 threads"):
        promises.create_only(Ground(store, store, MemoryTransport, threading.Event()))
