"""Which points stay: the promises of the rules, over all kinds of points, and cases from the calendar."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vbackup.api import Point
from vbackup.config import Keep
from vbackup.jobs.retention import Decision, decide, keep_all

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
PERIODS = {
    "hourly": "%Y-%m-%dT%H%z",
    "daily": "%Y-%m-%d",
    "weekly": "%G-W%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}
RULES = ("last", *PERIODS)
SPECIAL = ("protected", "from the future", "the machine's newest", "made last")


def point(time: datetime | str, number: int = 0, sequence: int = 0) -> Point:
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return Point(
        id=f"{number:032x}", machine="web", hypervisor="lab", hypervisor_type="fake", machine_id="1", job="nightly",
        time=time, sequence=sequence, disks=(),
    )  # fmt: skip


def points(*times: datetime | str) -> list[Point]:
    return [point(time, number, number) for number, time in enumerate(times)]


def decided(made: Iterable[Point], zone: tzinfo = UTC, now: datetime = NOW, **keep: int) -> list[tuple[bool, str]]:
    """Decide; return what is kept and the reasons, in the order of time, without those of the newest."""
    return [
        (decision.kept, "; ".join(reason for reason in decision.reasons if reason != "the machine's newest"))
        for decision in decide(made, Keep(**keep), zone, {}, now)
    ]


def test_a_point_that_the_store_locks_stays_until_then() -> None:
    old, new = points("2026-01-01", "2026-02-01")
    locked = old.model_copy(update={"locked_until": NOW + timedelta(hours=1)})
    made = [locked, new]
    assert decided(made, last=1)[0] == (True, "locked by the store until 2026-11-22 13:00")
    assert decided(made, last=1, now=NOW + timedelta(hours=2))[0][0] is False


def kept(decisions: Iterable[Decision]) -> list[Point]:
    return [decision.point for decision in decisions if decision.kept]


# Times that are close to each other, and to where clocks are turned, years begin and days are left out.
_EDGES = [
    datetime(2025, 3, 30, 1, tzinfo=UTC),
    datetime(2025, 10, 26, 1, tzinfo=UTC),
    datetime(2011, 11, 6, 2, 31, tzinfo=UTC),
    datetime(2011, 12, 30, 10, tzinfo=UTC),
    datetime(2020, 12, 31, 23, tzinfo=UTC),
    datetime(2024, 2, 29, 12, tzinfo=UTC),
]
_ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
_minutes = st.one_of(st.integers(-300, 300), st.integers(-20_000, 20_000), st.integers(-1_000_000, 1_000_000))
_times = st.builds(lambda edge, minutes: edge + timedelta(minutes=minutes), st.sampled_from(_EDGES), _minutes)
_keeps = st.fixed_dictionaries({}, optional={rule: st.integers(0, 6) for rule in RULES})


@st.composite
def sites(draw: st.DrawFn) -> tuple[list[Point], tzinfo, dict[str, str], datetime]:
    """Points of a machine, a time zone, protected points, and the time."""
    times = draw(st.lists(_times, max_size=30))
    made = [point(time, number, draw(st.integers(0, 8))) for number, time in enumerate(times)]
    chosen = draw(st.sets(st.sampled_from([each.id for each in made]), max_size=3)) if made else set()
    zone = ZoneInfo(draw(st.sampled_from(_ZONES)))
    return made, zone, dict.fromkeys(chosen, "audit"), draw(st.one_of(st.just(NOW), _times))


@given(sites(), _keeps)
def test_what_is_kept_once_is_kept_for_the_same_reasons_when_the_others_are_gone(site, keep):
    made, zone, protected, now = site
    first = decide(made, Keep(**keep), zone, protected, now)
    again = decide(kept(first), Keep(**keep), zone, protected, now)
    assert again == [decision for decision in first if decision.kept]


@given(sites(), _keeps, st.sampled_from(RULES), st.integers(1, 5))
def test_a_larger_number_never_keeps_less(site, keep, rule, more):
    made, zone, protected, now = site
    assume(keep)
    few = kept(decide(made, Keep(**keep), zone, protected, now))
    many = kept(decide(made, Keep(**keep | {rule: keep.get(rule, 0) + more}), zone, protected, now))
    assert {each.id for each in few} <= {each.id for each in many}


@given(sites(), _keeps)
def test_what_must_stay_stays(site, keep):
    made, zone, protected, now = site
    stay = {each.id for each in kept(decide(made, Keep(**keep), zone, protected, now))}
    assert protected.keys() <= stay
    assert {each.id for each in made if each.time > now} <= stay
    past = [each for each in made if each.time <= now]
    if past:
        assert max(past, key=lambda each: (each.time, each.sequence, each.id)).id in stay
        assert max(each.sequence for each in past) in {each.sequence for each in past if each.id in stay}


@given(sites(), _keeps, st.integers())
def test_the_order_of_the_points_does_not_matter(site, keep, seed):
    made, zone, protected, now = site
    shuffled = random.Random(seed).sample(made, len(made))
    assert decide(shuffled, Keep(**keep), zone, protected, now) == decide(made, Keep(**keep), zone, protected, now)


@given(sites(), _keeps)
def test_each_rule_keeps_the_newest_of_its_last_periods_and_nothing_else(site, keep):
    """Against a model that looks at each rule alone, from the end of each period."""
    made, zone, protected, now = site
    assume(keep)
    past = sorted((p for p in made if p.time <= now), key=lambda p: (p.time, p.sequence, p.id))
    expected = {each.id: set() for each in made}
    for rule, form in PERIODS.items():
        newest = {}
        for each in past:
            label = each.time.astimezone(zone).strftime(form)
            newest.pop(label, None)
            newest[label] = each.id
        count = keep.get(rule, 0)
        for identity in list(newest.values())[-count:] if count else ():
            expected[identity].add(rule)
    for each in past[-keep["last"] :] if keep.get("last") else ():
        expected[each.id].add("last")
    for decision in decide(made, Keep(**keep), zone, protected, now):
        ordinary = {r.split(" ")[0] for r in decision.reasons if not r.startswith(SPECIAL)} if decision.kept else set()
        assert ordinary == expected[decision.point.id]
        assert decision.reasons
        assert decision.kept == (bool(ordinary) or any(reason.startswith(SPECIAL) for reason in decision.reasons))


@given(sites())
def test_no_rules_keep_everything(site):
    made, zone, protected, now = site
    for none in (None, Keep()):
        decisions = decide(made, none, zone, protected, now)
        assert all(decision.kept for decision in decisions)
        assert {decision.reasons[0] for decision in decisions} <= {"the job has no keep rules"}


def test_only_zeros_keep_only_the_newest():
    decisions = decide(points("2026-11-19", "2026-11-20", "2026-11-21"), Keep(last=0, daily=0), UTC, {}, NOW)
    assert [(d.kept, d.reasons) for d in decisions] == [
        (False, ("no rule keeps it",)),
        (False, ("no rule keeps it",)),
        (True, ("the machine's newest",)),
    ]


def test_nothing_at_all():
    assert decide([], Keep(daily=1), UTC, {}, NOW) == []


def test_every_rule_that_keeps_a_point_is_told():
    made = points("2026-10-31T23:00", "2026-11-20T23:00", "2026-11-21T03:00", "2026-11-21T23:00")
    assert decided(made, last=2, daily=2, monthly=12) == [
        (True, "monthly 2026-10"),
        (True, "daily 2026-11-20"),
        (True, "last 2 of 2"),
        (True, "last 1 of 2; daily 2026-11-21; monthly 2026-11"),
    ]


def test_why_a_point_goes_is_told_by_the_finest_period_that_another_stands_for():
    made = points("2026-10-05", "2026-10-31", "2026-11-21T03:00", "2026-11-21T23:00")
    assert decided(made, daily=1, monthly=2) == [
        (False, "a later point of 2026-10 stands for that month"),
        (True, "monthly 2026-10"),
        (False, "a later point of 2026-11-21 stands for that day"),
        (True, "daily 2026-11-21; monthly 2026-11"),
    ]


def test_periods_without_points_do_not_count():
    made = points("2024-01-01", "2025-05-05", "2026-11-21")
    assert [stays for stays, _ in decided(made, daily=2)] == [False, True, True]


def test_the_day_that_ends_summer_time_is_one_day_with_an_hour_that_comes_twice():
    made = points("2026-10-24T22:30", "2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T22:30", "2026-10-25T23:30")
    assert decided(made, BERLIN, hourly=9) == [
        (True, "hourly 2026-10-25T00+02:00"),
        (True, "hourly 2026-10-25T02+02:00"),
        (True, "hourly 2026-10-25T02+01:00"),
        (True, "hourly 2026-10-25T23+01:00"),
        (True, "hourly 2026-10-26T00+01:00"),
    ]
    later = "a later point of 2026-10-25 stands for that day"
    assert decided(made, BERLIN, daily=9) == [
        *[(False, later)] * 3,
        (True, "daily 2026-10-25"),
        (True, "daily 2026-10-26"),
    ]


def test_the_day_that_begins_summer_time_is_one_day():
    made = points("2026-03-28T22:59", "2026-03-28T23:00", "2026-03-29T00:59", "2026-03-29T01:00", "2026-03-29T21:59")
    assert [reason for _, reason in decided(made, BERLIN, hourly=9)] == [
        "hourly 2026-03-28T23+01:00",
        "hourly 2026-03-29T00+01:00",
        "hourly 2026-03-29T01+01:00",
        "hourly 2026-03-29T03+02:00",
        "hourly 2026-03-29T23+02:00",
    ]
    assert [stays for stays, _ in decided(made, BERLIN, daily=9)] == [True, False, False, False, True]


def test_times_given_in_the_hour_that_comes_twice_are_ordered_as_they_came():
    first = datetime(2026, 10, 25, 2, 45, tzinfo=BERLIN, fold=0)
    second = datetime(2026, 10, 25, 2, 15, tzinfo=BERLIN, fold=1)
    later, earlier = point(second, 1), point(first, 2)
    assert decide([later, earlier], Keep(last=1), BERLIN, {}, NOW)[-1] == Decision(
        later, True, ("last 1 of 1", "the machine's newest")
    )


def test_weeks_and_years_end_where_the_zone_has_it():
    """2020 has a week 53; it ends with the 3rd of January, and the year ends an hour before that of UTC."""
    made = points("2020-12-28T12:00", "2020-12-31T22:59", "2020-12-31T23:00", "2021-01-03T22:59", "2021-01-03T23:00")
    assert decided(made, BERLIN, weekly=5, yearly=5) == [
        (False, "a later point of 2020-W53 stands for that week"),
        (True, "yearly 2020"),
        (False, "a later point of 2020-W53 stands for that week"),
        (True, "weekly 2020-W53"),
        (True, "weekly 2021-W01; yearly 2021"),
    ]


def test_of_two_points_in_one_second_the_one_made_later_is_the_newer():
    moment = "2026-11-21T03:00"
    older, newer = point(moment, number=9, sequence=4), point(moment, number=1, sequence=5)
    assert kept(decide([newer, older], Keep(daily=1), UTC, {}, NOW)) == [newer]
    low, high = point(moment, number=1), point(moment, number=2)
    assert kept(decide([high, low], Keep(daily=1), UTC, {}, NOW)) == [high]


def test_a_point_from_the_future_pushes_none_out():
    made = points("2026-11-20", "2026-11-21", "2031-01-01", "2032-01-01")
    assert decided(made, last=1, yearly=1) == [
        (False, "a later point of 2026 stands for that year"),
        (True, "last 1 of 1; yearly 2026"),
        (True, "from the future"),
        (True, "from the future"),
    ]


def test_the_point_made_last_stays_though_its_clock_had_been_reset():
    made = [point("2026-11-21", 1, sequence=7), point("1970-01-01", 2, sequence=8), point("1970-01-02", 3, sequence=9)]
    assert decided(made, daily=1) == [
        (False, "no rule keeps it"),
        (True, "made last, whatever its time"),
        (True, "daily 2026-11-21"),
    ]


@pytest.mark.parametrize(("reason", "shown"), [("audit 2026", "protected: audit 2026"), ("", "protected")])
def test_protected_points_count_as_any_others(reason: str, shown: str):
    made = points("2026-11-19", "2026-11-20", "2026-11-21")
    decisions = decide(made, Keep(daily=1), UTC, {made[0].id: reason, made[2].id: reason}, NOW)
    assert [decision.reasons for decision in decisions] == [
        (shown,),
        ("no rule keeps it",),
        ("daily 2026-11-21", shown, "the machine's newest"),
    ]


def test_points_without_rules_are_kept_with_the_reason():
    made = points("2026-11-20", "2026-11-21")
    assert keep_all(reversed(made), "its job is gone", {made[1].id: "x"}) == [
        Decision(made[0], True, ("its job is gone",)),
        Decision(made[1], True, ("its job is gone", "protected: x")),
    ]
