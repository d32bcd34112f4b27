"""Pruning over jobs and targets: what is deleted where, in which order, and what trouble does to the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from vbackup.api import (
    ConfigError,
    Damage,
    Interrupted,
    Locked,
    MachineDescription,
    Options,
    Point,
    PruneOrder,
    PruneReport,
    TargetContext,
    Unavailable,
    VBackupError,
    clock,
    hookimpl,
)
from vbackup.config import Config, Entry, TargetEntry
from vbackup.jobs.protect import protect_points, protections, unprotect_points
from vbackup.jobs.prune import PruneOutcome, prune
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.testing.transports import MemoryTransport

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class ListTarget:
    """A target that keeps points in a list, notes what it is asked to do, and fails when it is told to."""

    name: ClassVar[str] = "list"
    options: ClassVar[type[BaseModel]] = Options
    encodes: ClassVar[bool] = False
    needs_files: ClassVar[bool] = False

    def __init__(self, options: Any, context: TargetContext) -> None:
        self.alias = context.alias
        self.kept: list[Point] = []
        self.damaged: list[Damage] = []
        self.reasons: dict[str, str] = {}
        self.done: list[Any] = []
        self.trouble: dict[str, VBackupError] = {}

    @property
    def id(self) -> str:
        return "0" * 32

    def points(self) -> list[Point]:
        self._note("points")
        return sorted(self.kept, key=lambda point: point.time)

    def damaged_points(self) -> list[Damage]:
        return self.damaged

    def delete(self, points: Sequence[Point]) -> None:
        self._note("delete", *points)
        self.kept = [point for point in self.kept if point not in points]

    def protected(self) -> Mapping[str, str]:
        self._note("protected")
        return dict(self.reasons)

    def protect(self, point: Point, reason: str) -> None:
        self.reasons[point.id] = reason

    def unprotect(self, point: Point) -> None:
        self.reasons.pop(point.id, None)

    def prune(self, order: PruneOrder) -> PruneReport:
        self._note("prune", order)
        left = [point for point in self.kept if point.id not in order.without]
        return PruneReport(freed=len(self.kept) - len(left), stored=len(left))

    def description(self, point: Point) -> MachineDescription:
        return MachineDescription(name=point.machine, id=point.machine_id)

    def close(self) -> None:
        pass

    def _note(self, what: str, *details: object) -> None:
        if what in self.trouble:
            raise self.trouble[what]
        self.done.append((what, *details))

    def _unused(self, *args: Any) -> Any:
        raise NotImplementedError

    init = writer = extents = read = file = verify = check = forget = _unused


class Plugin:
    """Registers what the tests need."""

    @hookimpl
    def vbackup_register_targets(self, register: Any) -> None:
        register(ListTarget)

    @hookimpl
    def vbackup_register_transports(self, register: Any) -> None:
        register(MemoryTransport)


class Place:
    """A site with two targets and a job that copies from one to the other."""

    def __init__(self, directory: Path) -> None:
        registry = Registry()
        registry.register(Plugin(), "tests")
        entry = TargetEntry(type="list", transport="memory")
        config = Config(
            transports={"memory": Entry(type="memory")},
            targets={"main": entry, "offsite": entry, "shelf": entry},
            jobs={
                "nightly": {"machines": ["lab:*"], "target": "main", "copies": ["offsite"], "keep": {"last": 2}},
                "weekly": {"machines": ["lab:*"], "target": "main", "keep": {"last": 1}},
                "all": {"machines": ["lab:*"], "target": "offsite"},
            },
        )
        self.site = Site(config, registry, state_dir=directory, cache_dir=directory)
        self._count = 0

    def target(self, alias: str) -> Any:
        return self.site.target(alias).inner

    def add(self, *aliases: str, job: str = "nightly", machine: str = "web", days: int, **more: Any) -> Point:
        """Put a point of so many days ago into targets."""
        self._count += 1
        made = {
            "id": f"{self._count:032x}", "machine": machine, "machine_id": machine, "hypervisor": "lab",
            "hypervisor_type": "fake", "job": job, "time": NOW - days * DAY, "sequence": 100 - days, "disks": (),
        }  # fmt: skip
        point = Point(**made | more)
        for alias in aliases:
            self.target(alias).kept.append(point)
        return point

    def prune(self, *names: str, **order: Any) -> PruneOutcome:
        return prune(self.site, names, PruneOrder(**order))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(clock, "now", lambda: NOW)
    place = Place(tmp_path)
    with place.site:
        yield place


def why(outcome: PruneOutcome, alias: str) -> dict[str, tuple[bool, str]]:
    (result,) = [result for result in outcome.results if result.target == alias]
    return {each.point.id: (each.kept, each.reasons[0]) for each in result.decisions}


def test_points_go_before_their_space_in_the_target_of_the_job_and_where_it_copies_to(place: Place) -> None:
    old = place.add("main", "offsite", days=3)
    kept = [place.add("main", "offsite", days=days) for days in (2, 1)]
    outcome = place.prune("nightly", rewrite=7, end_silent=True)
    assert [result.target for result in outcome.results] == ["main", "offsite"]
    for alias in ("main", "offsite"):
        target = place.target(alias)
        assert target.kept == kept
        assert target.done[-2:] == [("delete", old), ("prune", PruneOrder(rewrite=7, end_silent=True))]
    assert [result.gone for result in outcome.results] == [[old], [old]]
    assert not outcome.failed
    assert not outcome.warnings


def test_garbage_is_collected_where_no_point_goes_and_once_for_each_target(place: Place) -> None:
    place.add("main", days=1)
    outcome = place.prune()
    assert [result.target for result in outcome.results] == ["main", "offsite", "shelf"]
    for alias in ("main", "offsite", "shelf"):
        done = [what for what, *_ in place.target(alias).done]
        assert done == ["points", "protected", "prune"]
        assert place.target(alias).done[-1] == ("prune", PruneOrder())


def test_a_point_that_is_protected_while_the_points_are_read_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, *_ = [place.add("main", days=days) for days in (3, 2, 1)]
    read = ListTarget.points

    def points(self: ListTarget) -> list[Point]:
        found = read(self)
        self.protect(old, "just now")
        return found

    monkeypatch.setattr(ListTarget, "points", points)
    place.prune()
    assert old in place.target("main").kept


def test_rules_count_each_machine_and_each_job_for_itself(place: Place) -> None:
    for machine in ("web", "db"):
        for days in (1, 2, 3):
            place.add("main", machine=machine, days=days)
            place.add("main", machine=machine, days=days, job="weekly")
    outcome = place.prune("nightly", "weekly")
    left = [(p.machine, p.job, (NOW - p.time).days) for p in place.target("main").points()]
    assert sorted(left) == [
        *[("db", "nightly", days) for days in (1, 2)],
        ("db", "weekly", 1),
        *[("web", "nightly", days) for days in (1, 2)],
        ("web", "weekly", 1),
    ]
    machines = [each.point.machine for each in outcome.results[0].decisions]
    assert machines == sorted(machines)


def test_machines_of_one_name_on_two_hypervisors_are_two(place: Place) -> None:
    for hypervisor in ("lab", "farm"):
        for days in (1, 2, 3):
            place.add("main", days=days, hypervisor=hypervisor)
    place.prune()
    assert [p.hypervisor for p in place.target("main").points()] == ["lab", "farm"] * 2


def test_a_machine_that_was_renamed_is_still_one(place: Place) -> None:
    place.add("main", days=3, machine="old-name", machine_id="1")
    place.add("main", days=2, machine="new-name", machine_id="1")
    place.add("main", days=1, machine="new-name", machine_id="1")
    place.prune()
    assert [p.machine for p in place.target("main").points()] == ["new-name"] * 2


def test_other_jobs_than_the_named_are_left_alone(place: Place) -> None:
    for days in (1, 2, 3):
        place.add("main", days=days)
        place.add("main", days=days, job="weekly")
    outcome = place.prune("weekly")
    assert [each.point.job for each in outcome.results[0].decisions] == ["weekly"] * 3
    assert [point.job for point in place.target("main").points()] == ["nightly", "nightly", "nightly", "weekly"]
    assert place.target("offsite").done == []


def test_points_that_no_rule_is_about_are_kept_and_it_is_said_why(place: Place) -> None:
    gone = [place.add("main", job="gone", days=days) for days in (1, 2, 3)]
    none = place.add("main", job="", days=1)
    moved = [place.add("shelf", days=days) for days in (1, 2, 3)]
    unruled = [place.add("offsite", job="all", days=days) for days in (1, 2, 3)]
    outcome = place.prune()
    assert all(result.gone == [] for result in outcome.results)
    main, offsite, shelf = (why(outcome, alias) for alias in ("main", "offsite", "shelf"))
    assert {main[p.id] for p in gone} == {(True, "its job 'gone' is not configured")}
    assert main[none.id] == (True, "its job '' is not configured")
    assert {shelf[p.id] for p in moved} == {(True, "its job 'nightly' does not use this target")}
    assert {offsite[p.id] for p in unruled} == {(True, "the job has no keep rules")}


def test_a_dry_run_deletes_nothing_and_tells_the_target_what_would_be_gone(place: Place) -> None:
    old = place.add("main", days=3)
    place.add("main", days=2)
    place.add("main", days=1)
    outcome = place.prune("weekly", "nightly", dry_run=True)
    main = outcome.results[0]
    assert outcome.dry_run
    assert main.gone == [old]
    assert main.space == PruneReport(freed=1, stored=2)
    assert len(place.target("main").kept) == 3
    assert place.target("main").done[-1] == ("prune", PruneOrder(dry_run=True, without=frozenset({old.id})))
    assert "delete" not in [what for what, *_ in place.target("main").done]
    again = place.prune("weekly", "nightly")
    assert again.results[0].decisions == main.decisions


def test_unknown_jobs_are_refused_before_anything_is_done(place: Place) -> None:
    place.add("main", days=3)
    with pytest.raises(ConfigError, match="there is no job named 'nihgtly'") as caught:
        place.prune("weekly", "nihgtly")
    assert caught.value.hint == "configured: all, nightly, weekly"
    assert place.target("main").done == []


def test_without_targets_there_is_nothing_to_prune(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no targets"):
        prune(Site(Config(), Registry(), state_dir=tmp_path, cache_dir=tmp_path), [], PruneOrder())


def test_a_damaged_point_is_reported_and_stands_for_nothing(place: Place) -> None:
    place.target("main").damaged.append(Damage("f" * 32, "", "", 0, 0, "it is cut short"))
    old, kept = place.add("main", days=3), [place.add("main", days=days) for days in (2, 1)]
    outcome = place.prune("nightly")
    assert outcome.warnings
    assert not outcome.failed
    assert outcome.results[0].damaged[0].reason == "it is cut short"
    assert outcome.results[0].gone == [old]
    assert place.target("main").kept == kept


@pytest.mark.parametrize("step", ["points", "protected", "delete", "prune"])
def test_a_target_that_fails_stops_no_other(place: Place, step: str) -> None:
    old = place.add("main", "offsite", days=3)
    for days in (2, 1):
        place.add("main", "offsite", days=days)
    failure = Unavailable("the store is away")
    place.target("main").trouble[step] = failure
    outcome = place.prune("nightly")
    main, offsite = outcome.results
    assert outcome.failed
    assert (main.error, offsite.error) == (failure, None)
    assert main.space is None
    # What is not known to be deleted is not said to be.
    assert main.gone == ([old] if step == "prune" else [])
    assert offsite.gone == [old]
    assert len(place.target("main").kept) == (2 if step == "prune" else 3)


def test_when_asked_to_stop_no_other_target_is_begun(place: Place) -> None:
    place.add("main", "offsite", days=3)
    place.target("main").trouble["prune"] = Interrupted("stopped")
    with pytest.raises(Interrupted):
        place.prune()
    assert place.target("offsite").done == []


def test_notes_of_a_target_are_warnings(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ListTarget, "prune", lambda self, order: PruneReport(waiting=5))
    assert not place.prune().warnings
    monkeypatch.setattr(ListTarget, "prune", lambda self, order: PruneReport(notes=("a pack is missing",)))
    assert place.prune().warnings


def test_points_that_the_store_has_locked_stay_and_space_is_freed_all_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, old, *_ = [place.add("main", days=days) for days in (4, 3, 2, 1)]
    target = place.target("main")

    def delete(points: Sequence[Point]) -> None:
        target.kept = [point for point in target.kept if point not in points or point == locked]
        raise Locked("an object is locked")

    monkeypatch.setattr(target, "delete", delete)
    outcome = place.prune("nightly")
    assert not outcome.failed
    assert outcome.warnings
    result = outcome.results[0]
    assert result.gone == [old]
    assert why(outcome, "main")[locked.id] == (True, "locked by the store")
    assert result.space is not None
    assert "an object is locked" in result.space.notes[0]
    assert target.done[-1] == ("prune", PruneOrder())


def test_protection_holds_in_every_target_until_it_is_undone(place: Place) -> None:
    old = place.add("main", "offsite", days=3)
    for days in (2, 1):
        place.add("main", "offsite", days=days)
    done = protect_points(place.site, [old.id[:32], "web@2026-11-19"], " for the\n audit ")
    assert [(found.target, found.point) for found in done] == [("main", old), ("offsite", old)]
    assert protections(place.site, done) == {"main": {old.id: "for the audit"}, "offsite": {old.id: "for the audit"}}
    outcome = place.prune()
    assert why(outcome, "main")[old.id] == (True, "protected: for the audit")
    assert why(outcome, "offsite")[old.id] == (True, "protected: for the audit")
    for _ in range(2):
        assert len(unprotect_points(place.site, [old.id])) == 2
    assert [result.gone for result in place.prune("nightly").results] == [[old], [old]]


def test_protected_is_asked_once_for_each_target(place: Place) -> None:
    for days in (1, 2):
        place.add("main", "offsite", days=days)
    found = protect_points(place.site, ["web@latest"], "")
    for alias in ("main", "offsite", "shelf"):
        place.target(alias).done.clear()
    protections(place.site, found * 3)
    assert place.target("main").done == place.target("offsite").done == [("protected",)]
    assert place.target("shelf").done == []
