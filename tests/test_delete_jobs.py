"""Points are deleted with all their copies, the unreadable ones by the id that is shown, and no protected one."""

from __future__ import annotations

import shutil

import pytest

from tests.copy_place import Place, here
from tests.support import restored
from vbackup.api import ConfigError, NotFound, PruneOrder, Unavailable
from vbackup.jobs.delete import delete_points
from vbackup.jobs.points import list_damaged
from vbackup.jobs.protect import protect_points, unprotect_points
from vbackup.jobs.prune import prune
from vbackup.repository.points import point_key

__all__ = ["here"]  # a fixture


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
