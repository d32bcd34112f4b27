"""Disks that a job leaves out."""

from __future__ import annotations

import pytest

from tests.fakelab import SIZE, Lab, by_machine, lab
from tests.support import noise, restored
from vbackup.testing.hypervisors import FakeDisk

__all__ = ["lab"]  # a fixture


@pytest.fixture
def shop(lab: Lab) -> Lab:
    """Three machines; each of ``lab`` has disks ``vda`` and ``vdb``."""
    lab.guests("lab:web", "lab:db", "vc:app")
    for name in ("web", "db"):
        lab.hypervisors["lab"].guests[name].disks["vdb"] = FakeDisk(bytearray(noise(SIZE, 7)))
    lab.job("lab:*", "vc:*")
    return lab


def kept(lab: Lab) -> dict[str, list[str]]:
    """Run; return the keys of the disks in each machine's new point."""
    report = lab.run()
    assert not report.failed
    return {name: [disk.key for disk in each.point.disks] for name, each in by_machine(report).items() if each.point}


def test_those_of_all_entries_that_mean_a_machine_are_left_out_without_a_warning(shop: Lab) -> None:
    shop.job("lab:*", "vc:*", exclude_disks={"lab:w*": ["vdb"], "lab:*": ["vdz"], "vc:web": ["vda"], "vc:app": []})
    assert kept(shop) == {"lab:web": ["vda"], "lab:db": ["vda", "vdb"], "vc:app": ["vda"]}
    assert [point.warnings for point in shop.points()] == [(), (), ()]
    assert shop.vbackup("run").code == 0


def test_folders_labels_and_members_of_groups(shop: Lab) -> None:
    web, db = shop.hypervisors["lab"].guests["web"], shop.hypervisors["lab"].guests["db"]
    web.folder, db.labels = "/prod", frozenset({("tag", "daily")})
    shop.group("pair", "lab:web", "lab:db")
    shop.job("@pair", exclude_disks={"lab:/prod/*": ["vdb"], "lab:tag=daily": ["vda"]})
    assert kept(shop) == {"lab:web": ["vda"], "lab:db": ["vdb"]}


def test_a_restore_point_shows_what_it_is_without(shop: Lab) -> None:
    shop.job("lab:web", exclude_disks={"lab:web": ["vdb"]})
    kept(shop)
    assert "disk vdb       not in this restore point\n" in shop.vbackup("show", "web@latest").out


@pytest.mark.parametrize("to", [(), ("--to", "away")], ids=["the same", "another"])
def test_a_restore_tells_what_it_is_without_before_a_byte_is_written(shop: Lab, to: tuple[str, ...]) -> None:
    shop.job("lab:web", exclude_disks={"lab:web": ["vdb"]})
    kept(shop)
    for options in ((), ("--dry-run",)):
        outcome = shop.vbackup("restore", "web@latest", "--as", "again", *to, *options)
        assert "disk vdb is not in the restore point, and is not restored" in outcome.out + outcome.err
        assert outcome.code == 3
        for hypervisor in shop.hypervisors.values():
            hypervisor.guests.pop("again", None)
    assert shop.vbackup("restore", "web@latest", "--disk", f"vda={shop.directory}/vda.raw").code == 0


def test_one_that_comes_back_is_read_in_full_and_the_others_are_not(shop: Lab) -> None:
    shop.job("lab:web")
    kept(shop)
    shop.job("lab:web", exclude_disks={"lab:web": ["vdb"]})
    kept(shop)
    shop.job("lab:web", exclude_disks={})
    web = shop.hypervisors["lab"].guests["web"]
    web.disks["vdb"].data[:4096] = noise(4096, 9)
    kept(shop)
    point = max(shop.points(), key=lambda each: each.sequence)
    reasons = {disk.key: disk.full_reason for disk in point.disks}
    assert reasons == {"vda": None, "vdb": "the restore point before is without this disk"}
    with shop.site() as site:
        assert restored(site.target("main"), point) == {key: bytes(disk.data) for key, disk in web.disks.items()}


def test_a_machine_of_which_nothing_is_left_fails_alone(shop: Lab) -> None:
    shop.job("lab:*", exclude_disks={"lab:web": ["vda", "vdb"]})
    outcome = shop.vbackup("run")
    assert outcome.code == 1
    assert "web: nothing is left of it to back up: job nightly leaves its disks out" in outcome.err
    assert "hint: see `exclude_disks`, or leave out the machine" in outcome.err
    assert [point.machine for point in shop.points()] == ["db"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"lba:*": ["vdb"]}, "jobs.nightly.exclude_disks.lba:*: there is no hypervisor 'lba'; did you mean 'lab'?"),
        ({"@shop": ["vdb"]}, "jobs.nightly.exclude_disks.@shop: must match pattern"),
        ({"!lab:web": ["vdb"]}, "jobs.nightly.exclude_disks.!lab:web: must match pattern"),
        ({"web": ["vdb"]}, "jobs.nightly.exclude_disks.web: must match pattern"),
        ({"lab:web": "vdb"}, "jobs.nightly.exclude_disks.lab:web: must be a list"),
        ({"lab:web": ["../x"]}, "jobs.nightly.exclude_disks.lab:web.0: must match pattern"),
        (["vdb"], "jobs.nightly.exclude_disks: must be a mapping"),
    ],
    ids=str,
)
def test_what_means_no_disk_of_a_machine_is_refused(shop: Lab, wrong: object, told: str) -> None:
    shop.job("lab:*", exclude_disks=wrong)
    outcome = shop.vbackup("run")
    assert outcome.code == 2
    assert told in outcome.err
