"""The barrier at which the machines of a group wait for each other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from vbackup.api import Interrupted, clock
from vbackup.engine.together import LATEST, Together


def together(*machines: str, stop: threading.Event | None = None, wait: float = 600, **absent: str) -> Together:
    return Together("shop", machines, absent, stop or threading.Event(), at_once=2, longest_wait=wait)


def waits(made: Together, *machines: str) -> None:
    """Wait until these machines wait."""
    with made._changed:
        while not set(machines) <= made._waiting:
            made._changed.wait(0.01)


def test_all_go_when_the_last_is_there() -> None:
    made = together("a", "b", "c")
    parts = {name: made.member(name) for name in "abc"}
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(parts[name].moment) for name in "ab"]
        waits(made, "a", "b")
        assert not any(future.done() for future in first)
        parts["c"].moment()
        for future in first:
            future.result()
    assert {part.together for part in parts.values()} == {made.id}
    assert [part.notes() for part in parts.values()] == [(), (), ()]
    assert len(made.id) == 32


def test_one_that_fails_lets_the_others_go() -> None:
    made = together("a", "b", "c")
    parts = {name: made.member(name) for name in "abc"}
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(parts[name].moment) for name in "ab"]
        waits(made, "a", "b")
        parts["c"].leave("it is on fire")
        for future in waiting:
            future.result()
    assert parts["a"].together == made.id
    assert parts["a"].notes() == ("group shop was captured without c: it is on fire",)
    assert parts["a"].notes() == ()
    assert parts["c"].together == ""


def test_nobody_waits_for_ever() -> None:
    made = together("a", "b", "c", wait=0.01)
    parts = {name: made.member(name) for name in "abc"}
    parts["a"].moment()
    parts["b"].moment()
    (missing_c, *_) = parts["a"].notes()[1:]
    assert missing_c == "group shop was captured without c: it was not ready within 0.01 s of the first"
    assert parts["b"].notes() == (
        "captured apart from the rest of group shop, of another moment: it was not ready within 0.01 s of the first",
    )
    assert (parts["a"].together, parts["b"].together) == (made.id, "")


def test_those_that_wait_go_together_when_the_time_is_up() -> None:
    made = together("a", "b", "c", wait=0.2)
    parts = {name: made.member(name) for name in "ab"}
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(part.moment) for part in parts.values()]:
            future.result()
    assert {part.together for part in parts.values()} == {made.id}


def test_what_takes_no_part_is_named_on_all() -> None:
    made = together("a", x="job nightly leaves it out")
    part = made.member("a")
    part.moment()
    assert part.notes() == ("group shop was captured without x: job nightly leaves it out",)


def test_what_was_noted_on_a_point_that_was_not_made_is_noted_again() -> None:
    made = together("a", x="job nightly leaves it out")
    part = made.member("a")
    assert part.notes()
    part.again()
    assert part.notes() == ("group shop was captured without x: job nightly leaves it out",)


def test_a_second_capture_is_not_of_that_moment() -> None:
    made = together("a", "b")
    a, b = made.member("a"), made.member("b")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(a.moment)
        waits(made, "a")
        b.moment()
        waiting.result()
    b.again()
    b.moment()
    assert b.together == ""
    assert "its first capture failed after the others were made" in b.notes()[0]
    assert a.together == made.id
    assert a.notes() == ("group shop was captured without b: its first capture failed after the others were made",)


def test_one_that_fails_before_the_moment_may_try_again() -> None:
    made = together("a", "b")
    a, b = made.member("a"), made.member("b")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(a.moment)
        waits(made, "a")
        b.again()
        b.moment()
        waiting.result()
    assert (a.together, b.together) == (made.id, made.id)


def test_a_plugin_that_does_not_wait_is_awaited_by_nobody() -> None:
    made = together("a", "b")
    a, b = made.member("a"), made.member("b")
    b.captured(clock.now())
    a.moment()
    a.captured(clock.now())
    assert b.together == ""
    assert "its hypervisor plugin does not wait" in b.notes()[0]
    assert (a.together, len(a.notes())) == (made.id, 1)


@pytest.mark.parametrize(("seconds", "when"), [(LATEST + 30, "after"), (-LATEST - 30, "before")])
def test_one_of_another_moment_is_not_together_with_the_others(seconds: float, when: str) -> None:
    made = together("a", "b")
    a, b = made.member("a"), made.member("b")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(a.moment)
        waits(made, "a")
        b.moment()
        waiting.result()
    opened = clock.now()
    a.captured(opened + timedelta(seconds=LATEST - 30))
    b.captured(opened + timedelta(seconds=seconds))
    assert (a.together, b.together) == (made.id, "")
    (note,) = b.notes()
    assert note.startswith("captured apart from the rest of group shop, of another moment: its capture is of ")
    assert note.endswith(f" s {when} the moment at which all were ready")
    assert a.notes()[0].startswith("group shop was captured without b: its capture is of ")


def test_all_members_are_named_also_those_that_take_no_part() -> None:
    assert together("b", "a", c="it is away").member("a").members == ("a", "b", "c")


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    made = together("a", "b", stop=stop)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(made.member("a").moment)
        waits(made, "a")
        stop.set()
        with pytest.raises(Interrupted, match="a was not backed up"):
            waiting.result()
