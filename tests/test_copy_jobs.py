"""Copies over jobs and targets: which points go where, what fails alone, and how copies are named and deleted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import guest, noise, restored
from tests.test_cli import Vbackup, place, ready, vbackup
from vbackup.api import (
    AlreadyExists,
    Busy,
    ConfigError,
    Corrupt,
    Interrupted,
    NotFound,
    PruneOrder,
    Unavailable,
    clock,
    hookimpl,
)
from vbackup.config import load
from vbackup.jobs.copy import CopyReport, copy
from vbackup.jobs.delete import delete_points
from vbackup.jobs.init import init
from vbackup.jobs.locks import locked
from vbackup.jobs.points import Found, find_point, list_damaged, list_points, pick
from vbackup.jobs.protect import protect_points, unprotect_points
from vbackup.jobs.prune import prune
from vbackup.jobs.run import RunReport, run
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.repository.layout import DEFAULT_CHUNK_SIZE
from vbackup.repository.points import get_point, point_key
from vbackup.repository.presence import end_session
from vbackup.testing.hypervisors import FakeHypervisor

__all__ = ["place", "ready", "vbackup"]  # fixtures

CHUNK = DEFAULT_CHUNK_SIZE


class Plugin:
    """Registers the hypervisor of the tests."""

    @hookimpl
    def vbackup_register_hypervisors(self, register: Any) -> None:
        register(FakeHypervisor)


class Place:
    """A site with a job that copies from one repository to another, and a third one."""

    def __init__(self, directory: Path, **job: Any) -> None:
        self.directory = directory
        self.site = self.open(**job)
        self.lab: Any = self.site.hypervisor("lab").inner

    def open(self, **job: Any) -> Site:
        config = {
            "hypervisors": {"lab": {"type": "fake"}},
            "transports": {name: {"type": "local", "path": str(self.store(name))} for name in (*NAMES, "files")},
            "targets": {
                name: {"type": "repository", "transport": name, "key": {"file": str(self.directory / f"{name}.key")}}
                for name in NAMES
            }
            | {"plain": {"type": "image", "transport": "files"}},
            "jobs": {
                "nightly": {"machines": ["lab:*"], "target": "main", "copies": ["offsite"], **job},
                "other": {"machines": ["lab:*"], "target": "main"},
            },
        }
        file = self.directory / "vbackup.yaml"
        file.write_text(json.dumps(config))
        registry = Registry.load()
        registry.register(Plugin(), "tests")
        state, cache = self.directory / "state", self.directory / "cache"
        return Site(load(file, registry), registry, state_dir=state, cache_dir=cache)

    def reopen(self) -> None:
        """Open the targets anew; the hypervisor keeps its guests."""
        self.site.close()
        self.site._hypervisors["lab"] = self.lab

    def store(self, name: str) -> Path:
        path = self.directory / "stores" / name
        path.parent.mkdir(exist_ok=True)
        return path

    def write(self, seed: int, name: str = "web") -> None:
        if name not in self.lab.guests:
            guest(self.lab, name, noise(4 * CHUNK, 1))
        self.lab.guests[name].disks["vda"].write(CHUNK, noise(CHUNK, seed))

    def run(self, *names: str) -> RunReport:
        return run(self.site, names or ("nightly",))

    def copy(self, *names: str, to: str = "offsite") -> CopyReport:
        return copy(self.site, names, to, lambda event: None)

    def ids(self, target: str) -> list[str]:
        return [point.id for point in self.site.target(target).points()]

    def damage(self, target: str, point: str) -> None:
        """Damage a point's object; as a host sees it that has no cache."""
        path = self.store(target) / point_key(point)
        path.chmod(0o600)
        path.write_bytes(b"rot" + path.read_bytes()[3:])
        self.reopen()
        shutil.rmtree(self.directory / "cache")


NAMES = ("main", "offsite", "shelf")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.site:
        init(made.site, None)
        yield made


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


# Deleting


def test_deleting_a_point_deletes_all_copies_unless_a_target_is_named(here: Place) -> None:
    for seed in (1, 2):
        here.write(seed)
        here.run()
    first, second = here.ids("main")
    assert [(d.id, d.target) for d in delete_points(here.site, [first])] == [(first, "main"), (first, "offsite")]
    assert here.ids("main") == here.ids("offsite") == [second]
    delete_points(here.site, ["web@latest"], "offsite")
    assert here.ids("main") == [second]
    assert here.ids("offsite") == []
    with pytest.raises(NotFound):
        delete_points(here.site, [second], "offsite")


def test_protected_points_are_not_deleted_and_nothing_else_is(here: Place) -> None:
    for seed in (1, 2):
        here.write(seed)
        here.run()
    first, second = here.ids("main")
    offsite = here.site.target("offsite")
    offsite.protect(offsite.points()[0], "audit")
    with pytest.raises(ConfigError, match="protected in offsite: audit") as caught:
        delete_points(here.site, [second, first])
    assert f"vbackup unprotect {first}" in caught.value.hint
    assert here.ids("main") == here.ids("offsite") == [first, second]
    delete_points(here.site, [first], "main")
    assert here.ids("main") == [second]


def test_points_that_cannot_be_read_or_were_lost_are_given_up_by_the_id_that_is_shown(here: Place) -> None:
    for seed in (1, 2, 3):
        here.write(seed)
        here.run("other")
    damaged, lost, left = here.ids("main")
    (here.store("main") / point_key(lost)).unlink()
    here.damage("main", damaged)
    assert {damage.point for damage in list_damaged(here.site)} == {damaged, lost}
    assert prune(here.site, ["other"], PruneOrder()).failed
    with pytest.raises(NotFound):
        delete_points(here.site, [damaged[:8]])
    gone = delete_points(here.site, [damaged, lost])
    assert {(each.id, each.point) for each in gone} == {(damaged, None), (lost, None)}
    assert list_damaged(here.site) == []
    assert here.ids("main") == [left]
    assert not prune(here.site, ["other"], PruneOrder()).failed


def test_a_plain_image_point_that_cannot_be_read_is_given_up_too(here: Place) -> None:
    for seed in (1, 2):
        here.write(seed)
        here.run("other")
    here.copy("other", to="plain")
    first, second = here.ids("plain")
    (record,) = here.store("files").glob(f"*/*{first[:8]}/point.json")
    record.write_text("{")
    (damage,) = list_damaged(here.site)
    assert "give it up" in str(here.copy(first, to="plain").errors[0][1])
    (gone,) = delete_points(here.site, [damage.point], "plain")
    assert (gone.target, gone.point) == ("plain", None)
    assert list_damaged(here.site) == []
    assert here.ids("plain") == [second]
    plain = here.site.target("plain")
    assert restored(plain, plain.points()[0]) == {"vda": bytes(here.lab.guests["web"].disks["vda"].data)}
    here.copy(first, to="plain")
    record.write_text("{")
    assert [each.target for each in delete_points(here.site, [first])] == ["main"]
    (damage,) = list_damaged(here.site)
    assert damage.point == first[:8]
    assert [each.target for each in delete_points(here.site, [damage.point])] == ["plain"]
    assert list_damaged(here.site) == []


def test_what_somebody_keeps_beside_plain_image_points_goes_by_its_whole_path_only(here: Place) -> None:
    for seed in (1, 2):
        here.write(seed)
        here.run("other")
    here.copy("other", to="plain")
    first, second = here.ids("plain")
    files = here.store("files")
    (source,), (other,) = (list(files.glob(f"*/*-{point[:8]}")) for point in (first, second))
    own = [files / "kept-by-hand" / source.name, files / "web" / first[0], files / "web" / f"x{first[:8]}"]
    for directory, origin in zip(own, (source, other, other), strict=True):
        shutil.copytree(origin, directory)
    assert {damage.point for damage in list_damaged(here.site)} == {str(each.relative_to(files)) for each in own}
    assert [(each.id, each.target) for each in delete_points(here.site, [first], "plain")] == [(first, "plain")]
    assert not source.exists()
    assert all(directory.exists() for directory in own)
    (gone,) = delete_points(here.site, [f"web/{first[0]}"], "plain")
    assert gone.point is None
    assert [directory.exists() for directory in own] == [True, False, True]
    assert here.ids("plain") == [second]


def test_a_protected_point_that_cannot_be_read_is_not_given_up(here: Place) -> None:
    here.write(1)
    here.run("other")
    here.copy("other", to="plain")
    (made,) = here.ids("main")
    protect_points(here.site, [made], "audit")
    (record,) = here.store("files").glob("*/*/point.json")
    record.write_text("{")
    here.damage("main", made)
    for name, alias in ((made, "main"), (made[:8], "plain")):
        with pytest.raises(ConfigError, match=f"protected in {alias}: audit"):
            delete_points(here.site, [name])
    assert len(list_damaged(here.site)) == 2


def test_what_is_done_but_for_a_target_that_is_away_ends_in_an_error_that_names_it(here: Place) -> None:
    here.write(1)
    here.run()
    (made,) = here.ids("main")
    away = here.store("offsite").rename(here.directory / "away")
    here.reopen()
    with pytest.raises(Unavailable, match="not protected in target offsite") as caught:
        protect_points(here.site, [made], "audit")
    assert "protected in main" in caught.value.hint
    assert here.site.target("main").protected() == {made: "audit"}
    with pytest.raises(Unavailable, match="not unprotected in target offsite"):
        unprotect_points(here.site, [made])
    with pytest.raises(Unavailable, match="may be another restore point"):
        delete_points(here.site, ["web@latest"])
    assert here.ids("main") == [made]
    with pytest.raises(Unavailable, match="not deleted in target offsite"):
        delete_points(here.site, [made])
    assert here.ids("main") == []
    away.rename(here.store("offsite"))
    here.reopen()
    assert [each.target for each in delete_points(here.site, [made])] == ["offsite"]


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


# The command line


def with_copies(place: Path, *copies: str) -> None:
    """Give the job of `test_cli.configure` a second target."""
    path = place / "vbackup.yaml"
    config = json.loads(path.read_text())
    (place / "far").mkdir()
    config["transports"]["far"] = {"type": "local", "path": str(place / "far")}
    config["targets"]["offsite"] = {**config["targets"]["main"], "transport": "far"}
    config["targets"]["offsite"]["key"] = {"file": str(place / "offsite.key")}
    config["jobs"]["nightly"]["copies"] = list(copies)
    path.write_text(json.dumps(config))


def test_the_command_copies_tells_and_skips(place: Path, ready: Vbackup) -> None:
    with_copies(place)
    assert ready("init", "--keys-of", "main").code == 2
    assert ready("init", "offsite", "--keys-of", "main").code == 0
    (point,) = ready("list", "--json").json
    copied = ready("copy", "nightly", "--to", "offsite")
    assert copied.code == 0
    heading, row, total = copied.out.splitlines()
    assert heading.split() == ["ID", "MACHINE", "TIME", "FROM", "READ", "STORED", "OUTCOME"]
    assert row.split()[0] == point["id"][:8]
    assert row.split()[-1] == "copied"
    assert total.startswith("offsite: 1 restore points copied, 0 there already, 0 failed: ")
    assert f"files:web: done: {point['id']}" in copied.err
    again = ready("copy", "web@latest", "--to", "offsite", "--json").json
    assert again == {
        "target": "offsite", "copied": 0, "skipped": 1, "failed": 0, "read": 0, "stored": 0, "points": [],
        "notes": [], "error": None,
    }  # fmt: skip
    assert [each["target"] for each in ready("list", "--json").json] == ["main", "offsite"]
    shutil.rmtree(place / "store")
    assert ready("restore", "web@latest", "--disk", "disk0=again.raw", "--format", "raw").code == 0
    assert (place / "again.raw").read_bytes()[: 4 << 20] == b"\7" * (4 << 20)


def test_a_run_tells_of_its_copies_and_fails_with_them(place: Path, ready: Vbackup) -> None:
    with_copies(place, "offsite")
    failed = ready("run", "--json")
    assert failed.code == 1
    report = json.loads(failed.out.splitlines()[-1])
    assert report["failed"]
    assert report["machines"][0]["error"] is None
    (copies,) = report["copies"]
    assert (copies["job"], copies["target"], copies["error"]["kind"]) == ("nightly", "offsite", "not-found")
    assert "vbackup init offsite" in failed.err
    assert ready("init").code == 0
    made = ready("run")
    assert made.code == 0
    assert "nightly to offsite: 3 restore points copied, 0 there already, 0 failed" in made.out


def test_deleting_tells_where_from(place: Path, ready: Vbackup) -> None:
    with_copies(place, "offsite")
    assert ready("init").code == 0
    assert ready("run").code == 0
    deleted = ready("delete", "web@latest")
    assert " from main, offsite: files:web of " in deleted.out
    kept = ready("list", "--json").json
    assert ready("delete", "web@latest", "--target", "offsite", "--json").json == [kept[-1]]
    assert ready("protect", "web@latest").code == 0
    refused = ready("delete", "web@latest")
    assert refused.code == 2
    assert "vbackup unprotect" in refused.err
