"""Copies over jobs and targets: which points go where, what fails alone, and which copy a name means."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.copy_place import CHUNK, Place, here
from tests.support import restored
from vbackup.api import AlreadyExists, Busy, ConfigError, Corrupt, Interrupted, NotFound, PruneOrder, clock
from vbackup.jobs.copy import CopyReport
from vbackup.jobs.delete import delete_points
from vbackup.jobs.init import init
from vbackup.jobs.locks import locked
from vbackup.jobs.points import Found, find_point, list_damaged, list_points, pick
from vbackup.jobs.protect import protect_points
from vbackup.jobs.prune import prune
from vbackup.repository.points import get_point
from vbackup.repository.presence import end_session

__all__ = ["here"]  # a fixture


def test_a_run_copies_what_it_made_and_list_shows_each_copy(here: Place) -> None:
    here.write(1)
    here.write(1, "db")
    report = here.run()
    assert not report.failed
    assert not report.warnings
    ((job, copies),) = report.copies
    assert (job, copies.target, len(copies.copied), copies.skipped) == ("nightly", "offsite", 2, 0)
    assert here.ids("main") == here.ids("offsite")
    assert [(f.point.machine, f.target) for f in list_points(here.site, "web")] == [("web", "main"), ("web", "offsite")]
    here.write(2)
    ((_, copies),) = here.run().copies
    assert len(copies.copied) == 2
    assert copies.skipped == 2
    assert copies.stored < 2 * CHUNK
    main, offsite = here.site.target("main"), here.site.target("offsite")
    assert [restored(main, point) for point in main.points()] == [restored(offsite, p) for p in offsite.points()]


def test_a_copy_that_fails_leaves_the_backup_and_is_made_up_for(here: Place) -> None:
    here.write(1)
    away = here.store("offsite").rename(here.directory / "away")
    for seed in (1, 2):
        here.write(seed)
        report = here.run()
        assert report.failed
        assert report.results[0].error is None
        ((_, copies),) = report.copies
        assert copies.error is not None
        here.reopen()
    assert len(here.ids("main")) == 2
    away.rename(here.store("offsite"))
    here.write(3)
    report = here.run()
    assert not report.failed
    ((_, copies),) = report.copies
    assert [each.point.id for each in copies.copied] == here.ids("main") == here.ids("offsite")
    sequences = [each.point.sequence for each in copies.copied]
    assert sequences == sorted(sequences)


def test_what_the_rules_would_not_keep_does_not_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Place(tmp_path, copies=[], keep={"last": 2})
    with made.site:
        init(made.site, None)
        start = datetime(2026, 1, 1, 12, tzinfo=UTC)
        for day in range(5):
            monkeypatch.setattr(clock, "now", lambda day=day: start + timedelta(days=day))
            made.write(day)
            made.run()
        first, *_, fourth, fifth = made.ids("main")
        protect_points(made.site, [first], "audit")
        assert len(made.copy("nightly").copied) == 3
        assert made.ids("offsite") == [first, fourth, fifth]
        assert made.site.target("offsite").protected() == {first: "audit"}
        assert made.copy("nightly").skipped == 3
    made.site = made.open(copies=["offsite"], keep={"last": 2})
    with made.site:
        outcome = prune(made.site, ["nightly"], PruneOrder())
        assert [len(result.gone) for result in outcome.results] == [2, 0]


def test_a_point_protected_after_it_was_copied_is_protected_there_with_the_next_copy(here: Place) -> None:
    here.write(1)
    here.run()
    main = here.site.target("main")
    main.protect(main.points()[0], "later")
    here.copy("nightly")
    assert here.site.target("offsite").protected() == main.protected()


def test_other_jobs_points_are_not_copied_but_by_name(here: Place) -> None:
    here.write(1)
    here.run("other")
    (made,) = here.ids("main")
    assert here.copy("nightly") == CopyReport("offsite")
    (done,) = here.copy(made[:8]).copied
    assert (done.point.id, done.source) == (made, "main")
    here.write(2)
    here.run("other")
    assert len(here.copy("web@latest", "other").copied) == 1
    assert here.ids("main") == here.ids("offsite")


def test_a_point_is_copied_from_wherever_it_is(here: Place) -> None:
    here.write(1)
    here.run()
    delete_points(here.site, ["web@latest"], "main")
    assert here.copy("web@latest", to="shelf").copied[0].source == "offsite"
    assert here.copy("web@latest", to="main").copied[0].source == "offsite"
    assert here.copy("web@latest", to="main").skipped == 1
    assert here.ids("main") == here.ids("offsite") == here.ids("shelf")


def test_a_damaged_point_fails_alone_and_says_what_is_damaged(here: Place) -> None:
    here.write(1)
    here.run("other")
    packs = set(here.store("main").glob("packs/*/*"))
    here.write(2)
    here.run("other")
    (pack,) = set(here.store("main").glob("packs/*/*")) - packs
    data = bytearray(pack.read_bytes())
    data[5000:5010] = bytes(10)
    pack.chmod(0o600)
    pack.write_bytes(data)
    here.write(3)
    here.run("other")
    report = here.copy("other")
    first, second, third = here.ids("main")
    assert report.failed
    ((failed, error),) = report.errors
    assert failed is not None
    assert failed.point.id == second
    assert isinstance(error, Corrupt)
    assert pack.name in error.message
    assert here.ids("offsite") == [first, third]


def test_a_copy_that_is_damaged_must_be_given_up_before_it_is_made_anew(here: Place) -> None:
    here.write(1)
    here.run()
    (made,) = here.ids("main")
    here.damage("offsite", made)
    report = here.run()
    assert report.failed
    ((_, copies),) = report.copies
    assert [error.hint for _, error in copies.errors] == [
        f"give it up with `vbackup delete {made} --target offsite`, then copy again"
    ]
    (gone,) = delete_points(here.site, [made], "offsite")
    assert (gone.id, gone.target, gone.point) == (made, "offsite", None)
    assert list_damaged(here.site) == []
    assert not here.run().failed
    assert here.ids("main") == here.ids("offsite")


def test_a_copy_by_a_run_that_was_ended_is_none(here: Place) -> None:
    """It came late, after a prune took the run for dead: it counts for nobody, and is in the way until a prune."""
    here.write(1)
    here.run()
    offsite: Any = here.site.target("offsite").inner
    (made,) = here.ids("offsite")
    store = offsite._open().store
    end_session(store.transport, store.keys, get_point(store.transport, made).session.hex(), dict)
    (here.site.state_dir / "targets" / "offsite" / "seen").unlink()  # else it is known here to have counted
    here.reopen()
    assert here.ids("offsite") == []
    for _ in range(2):
        ((_, error),) = here.copy(made).errors
        assert isinstance(error, AlreadyExists)
        assert "vbackup prune" in error.hint
    assert not prune(here.site, ["nightly"], PruneOrder()).failed
    assert len(here.copy(made).copied) == 1
    assert here.ids("offsite") == [made]


def test_a_run_that_copies_already_is_not_disturbed(here: Place) -> None:
    here.write(1)
    here.run("other")
    with locked(here.site.state_dir, "copies", here.site.target("offsite").id, "offsite"):
        with pytest.raises(Busy, match="copies into offsite"):
            here.copy("other")
        report = here.run()
    assert not report.failed
    assert report.warnings
    assert "another run" in report.copies[0][1].notes[0]


def test_stopping_copies_nothing_more(here: Place) -> None:
    here.write(1)
    here.run("other")
    here.site.stop.set()
    with pytest.raises(Interrupted):
        here.copy("other")
    assert here.ids("offsite") == []


def test_what_cannot_be_meant_is_refused(here: Place) -> None:
    here.write(1)
    here.run()
    with pytest.raises(ConfigError, match="no target named 'nowhere'"):
        here.copy("nightly", to="nowhere")
    with pytest.raises(ConfigError, match="makes its points in main"):
        here.copy("nightly", to="main")
    with pytest.raises(ConfigError, match="names no restore point"):
        here.copy("nihgtly")
    with pytest.raises(NotFound):
        here.copy("db@latest")


def test_of_several_copies_the_first_that_can_be_read_is_meant(here: Place) -> None:
    here.write(1)
    here.run()
    (made,) = here.ids("main")
    assert find_point(here.site, "web@latest").target == "main"
    assert find_point(here.site, made).target == "main"
    assert find_point(here.site, made, "offsite").target == "offsite"
    here.reopen()
    here.store("main").rename(here.directory / "away")
    assert find_point(here.site, "web@latest").target == "offsite"


def test_a_name_that_several_machines_have_is_no_name_of_a_point(here: Place) -> None:
    here.write(1)
    here.run("other")
    (made,) = here.site.target("main").points()
    twin = Found("main", made.model_copy(update={"id": "f" * 32, "hypervisor": "test", "machine_id": "other"}))
    both = [Found("main", made), twin]
    with pytest.raises(ConfigError, match=f"lab:web .{made.id[:8]}., test:web .ffffffff."):
        pick(both, "web@latest")
    assert pick(both, "lab:web@latest").point == made
    assert pick(both, "test:web@latest") == twin
    for text in ("web@", "lab:web@ "):
        with pytest.raises(ConfigError, match="has no time"):
            pick(both, text)


def test_points_go_to_plain_images_and_back(here: Place) -> None:
    for seed in (1, 2, 3):
        here.write(seed)
        here.run("other")
    assert len(here.copy("other", to="plain").copied) == 3
    assert len(here.copy(*here.ids("main"), to="plain").results) == 0
    delete_points(here.site, here.ids("main"), "main")
    assert len(here.copy(*here.ids("plain"), to="shelf").copied) == 3
    plain, shelf = here.site.target("plain"), here.site.target("shelf")
    for one, other in zip(plain.points(), shelf.points(), strict=True):
        assert restored(plain, one) == restored(shelf, other)
        assert plain.description(one) == shelf.description(other)
    assert here.lab.guests["web"].disks["vda"].data == restored(shelf, shelf.points()[-1])["vda"]


def test_a_target_that_cannot_be_used_fails_its_own_jobs_only(tmp_path: Path) -> None:
    place = Place(tmp_path, target="shelf", copies=[])
    with place.site:
        init(place.site, None)
        place.write(1)
        (tmp_path / "shelf.key").unlink()
        place.reopen()
        report = place.run("nightly", "other")
        assert [(each.target, each.error is None) for each in report.results] == [("shelf", False), ("main", True)]
        assert "shelf.key is not there" in str(report.results[0].error)
        assert report.failed
        assert len(place.ids("main")) == 1
