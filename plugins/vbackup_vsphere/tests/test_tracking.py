"""Change tracking: when a marker is believed, and that every doubt costs a full read with its reason."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vcsim.simulator import Simulator
from vbackup.api import Kind, Unavailable, VBackupError, cover
from vbackup_vsphere import tracking
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.tracking import Areas, Since, TrackedDisk, ask, base_file, why_full

from .captures import KIB, MACHINE, MIB, OTHER_OWNER, Copy, Site, Sites


def _exact(copy: Copy, site: Site) -> bool:
    return all(content == site.simulator.disk(MACHINE, int(key)).read_bytes() for key, content in copy.disks.items())


def _key(vcsim: Simulator) -> int:
    return int(vcsim.disks(MACHINE)[0]["key"])


def test_an_answer_in_many_pages(make_vcsim: Any, make_site: Sites) -> None:
    site = make_site(make_vcsim(max_areas=2), read=["datastore"])
    site.track()
    first = site.capture()
    rnd = random.Random(2)
    for _ in range(30):
        site.write(rnd.randrange(len(site.content()) - 8), rnd.randbytes(8))
    asked = site.simulator.calls().get("QueryChangedDiskAreas", 0)
    second = site.capture(first)
    assert second.full_reason is None
    assert _exact(second, site)
    assert site.simulator.calls()["QueryChangedDiskAreas"] - asked > 3


def test_rough_areas(site: Site, vcsim: Simulator) -> None:
    vcsim.tracking(coarse=MIB)
    first = site.capture()
    site.write(3 * MIB + 5, b"x")
    second = site.capture(first)
    assert set(second.read.values()) == {MIB}
    assert _exact(second, site)


def test_tracking_is_off(make_site: Sites) -> None:
    site = make_site(read=["datastore"])
    copy = site.capture()
    assert "tracking: enable" in (copy.full_reason or "")
    assert copy.marker is None


def test_tracking_is_not_wanted(make_site: Sites) -> None:
    site = make_site(read=["datastore"], tracking=False)
    site.track()
    copy = site.capture()
    assert copy.full_reason == "changed-block tracking is not used, as configured"
    assert copy.marker is None


@pytest.mark.parametrize("late", [False, True])
def test_tracking_is_switched_on(make_site: Sites, vcsim: Simulator, late: bool) -> None:
    vcsim.tracking(late=late)
    site = make_site(read=["datastore"], tracking="enable")
    site.write(7, b"something")
    first = site.capture()
    assert site.get("config.changeTrackingEnabled")
    assert any("switched on" in note for note in first.notes)
    assert first.full_reason == "first backup of this disk"
    assert _exact(first, site)
    site.write(200 * KIB, b"more")
    second = site.capture(first)
    assert second.full_reason is None
    assert _exact(second, site)
    assert site.snapshots() == []


def test_tracking_cannot_be_switched_on_under_snapshots(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(read=["nfc"], tracking="enable")
    vcsim.snapshot(MACHINE, "before the update")
    copy = site.capture()
    assert not site.get("config.changeTrackingEnabled")
    assert "while the machine has snapshots" in (copy.full_reason or "")
    assert any("stays off" in note for note in copy.notes)
    assert site.snapshots() == ["before the update"]


def test_tracking_that_cannot_be_switched_on(make_site: Sites, vcsim: Simulator) -> None:
    vcsim.deny("VirtualMachine.Config.ChangeTracking")
    site = make_site(read=["datastore"], tracking="enable")
    copy = site.capture()
    assert "could not be switched on" in (copy.full_reason or "")
    assert any("VirtualMachine.Config.ChangeTracking" in note for note in copy.notes)
    assert _exact(copy, site)


def test_old_virtual_hardware(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(read=["datastore"], tracking="enable")
    vcsim.set(MACHINE, config__version="vmx-04")
    assert "virtual hardware 4" in (site.capture().full_reason or "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sim: sim.reset_cbt(MACHINE), "its change tracking was reset"),
        (lambda sim: sim.resize_disk(MACHINE, _key(sim), 16 * MIB), "resized from"),
        (lambda sim: sim.fault("QueryChangedDiskAreas", "FileFault", times=1), "vSphere cannot tell what changed"),
    ],
)
def test_a_doubt_costs_a_full_read(
    site: Site, vcsim: Simulator, change: Callable[[Simulator], None], reason: str
) -> None:
    site.write(0, b"first")
    first = site.capture()
    site.write(500 * KIB, b"second")
    change(vcsim)
    second = site.capture(first)
    assert reason in (second.full_reason or "")
    assert _exact(second, site)
    site.write(MIB, b"third")
    third = site.capture(second)
    assert third.full_reason is None
    assert _exact(third, site)


def test_another_disk_in_its_place(site: Site, vcsim: Simulator) -> None:
    first = site.capture()
    key = _key(vcsim)
    vcsim.remove_disk(MACHINE, key)
    assert vcsim.add_disk(MACHINE, 8 * MIB) == key
    site.write(9, b"of the new one")
    second = site.capture(first)
    assert "replaced by another disk" in (second.full_reason or "")
    assert _exact(second, site)


def test_a_disk_that_was_added_and_one_that_was_removed(site: Site, vcsim: Simulator) -> None:
    first = site.capture()
    added = vcsim.add_disk(MACHINE, 4 * MIB)
    vcsim.guest_write(MACHINE, added, 1000, b"new disk")
    second = site.capture(first)
    assert second.full_reasons[str(added)] == "its changes were not tracked at the last backup"
    assert [reason for key, reason in second.full_reasons.items() if key != str(added)] == [None]
    assert _exact(second, site)
    vcsim.remove_disk(MACHINE, added)
    third = site.capture(second)
    assert str(added) not in third.disks
    assert third.full_reason is None


def test_two_owners_do_not_disturb_each_other(site: Site) -> None:
    mine = site.capture()
    site.write(10 * KIB, b"one")
    other = site.capture(owner=OTHER_OWNER)
    assert other.full_reason == "first backup of this disk"
    site.write(300 * KIB, b"two")
    mine = site.capture(mine)
    assert mine.full_reason is None
    assert _exact(mine, site)
    site.write(600 * KIB, b"three")
    other = site.capture(other, owner=OTHER_OWNER)
    assert other.full_reason is None
    assert _exact(other, site)


def test_the_marker_of_another_owner_is_not_believed(site: Site) -> None:
    foreign = site.capture(owner=OTHER_OWNER)
    assert site.capture(foreign).full_reason == "first backup of this disk"


def test_the_marker_of_another_machine_is_not_believed(site: Site) -> None:
    first = site.capture()
    assert first.marker is not None
    first.marker["vm"] = "5005ca5e-0000-0000-0000-000000000000"
    assert "another machine" in (site.capture(first).full_reason or "")


@pytest.mark.parametrize("marker", [{}, {"owner": 1}, {"vm": "x", "disks": []}, {"what": "is this"}])
def test_a_marker_that_is_not_understood(marker: dict[str, Any]) -> None:
    assert Since.parse(marker, "0" * 32) is None


def test_a_user_s_snapshot_is_kept_and_no_matter(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(read=["nfc"])
    site.track()
    site.write(0, b"below")
    vcsim.snapshot(MACHINE, "before the update")
    site.write(70 * KIB, b"above")
    first = site.capture()
    assert _exact(first, site)
    assert site.snapshots() == ["before the update"]


def _disk(change_id: str | None = "aa bb/7", **values: Any) -> VmDisk:
    facts: dict[str, Any] = {
        "device": 2000, "label": "Hard disk 1", "size": 1 << 30, "file": "[ds] vm/vm.vmdk", "uuid": "6000",
        "has_parent": False,
        "datastore": "ds", "datastore_type": "VMFS", "is_thin": True, "is_encrypted": False, "bus": "scsi",
        "controller": "pvscsi", "left_out": None,
    }  # fmt: skip
    return VmDisk(change_id=change_id, **{**facts, **values})


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (_disk("aa bb/8"), None),
        (_disk("aa bb/7"), "earlier state"),
        (_disk("aa bb/3"), "earlier state"),
        (_disk("cc dd/9"), "reset"),
        (_disk("nonsense"), "reset"),
        (_disk("aa bb/x"), "not understood"),
        (_disk(None), "no change id"),
        (_disk("aa bb/8", size=2 << 30), "resized"),
        (_disk("aa bb/8", uuid="6001"), "replaced"),
        (_disk("aa bb/8", file="[other] vm/vm.vmdk"), "moved"),
        (_disk("aa bb/8", file="[ds] vm/vm-000002.vmdk"), None),
        (_disk("aa bb/8", device=2001), "not tracked"),
    ],
)
def test_when_a_marker_is_believed(now: VmDisk, reason: str | None) -> None:
    then = TrackedDisk.of(_disk())
    assert then is not None
    since = Since(owner="0" * 32, vm="uuid", disks={"2000": then}, had_snapshots=False)
    found = why_full(now, "uuid", Since.parse(since.dump(), "0" * 32))
    assert found is None if reason is None else reason in (found or "")


def test_the_layers_of_a_disk_have_one_name() -> None:
    assert base_file("[ds] a-000001/b-000012.vmdk") == "[ds] a-000001/b.vmdk"


def _answer(start: int, length: int, *areas: tuple[int, int]) -> SimpleNamespace:
    changed = [SimpleNamespace(start=at, length=count) for at, count in areas]
    return SimpleNamespace(startOffset=start, length=length, changedArea=changed)


@pytest.mark.parametrize(
    "answer",
    [
        _answer(0, 0),
        _answer(0, -1),
        _answer(512, 1024, (512, 512)),
        _answer(0, 1000, (0, 512)),
        _answer(0, 1024),
        _answer(0, 4096, (512, 0)),
        _answer(0, 4096, (512, 100)),
        _answer(0, 4096, (512, 512), (0, 512)),
    ],
)
def test_nonsense_is_not_believed(answer: SimpleNamespace) -> None:
    found = ask(lambda *_: answer, 4096, "*")
    assert isinstance(found, str)
    assert "nonsense" in found


def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "PAGES", 100)
    found = ask(lambda offset, _: _answer(offset, 512, (offset, 512)), 1 << 40, "*")
    assert isinstance(found, str)
    assert "does not end" in found


@pytest.mark.parametrize(
    "fault", ["FileLocked", "CannotAccessFile", "Timedout", "TaskInProgress", "HostCommunication", "FileFault"]
)
def test_a_fault_that_stays_costs_a_full_read_and_no_backup(site: Site, vcsim: Simulator, fault: str) -> None:
    first = site.capture()
    site.write(5 * KIB, b"changed")
    vcsim.fault("QueryChangedDiskAreas", fault, times=100)
    second = site.capture(first)
    assert "vSphere cannot tell what changed" in (second.full_reason or "")
    assert _exact(second, site)


def test_what_others_snapshots_may_have_been_reverted_to_is_read_in_full(make_site: Sites, vcsim: Simulator) -> None:
    """After a revert the host uses numbers of change ids again (KB 1021607)."""
    site = make_site(read=["vddk"], vddk=vcsim.vddk())
    site.track()
    first = site.capture()
    vcsim.snapshot(MACHINE, "before the update")
    site.write(300 * KIB, b"later")
    second = site.capture(first)
    assert second.full_reason is None  # there was none to go back behind the first backup
    vcsim.remove_snapshot(MACHINE, "before the update")
    third = site.capture(second)
    assert "may have been reverted" in (third.full_reason or "")
    fourth = site.capture(third)
    assert fourth.full_reason is None
    assert all(_exact(copy, site) for copy in (second, third, fourth))


def test_a_marker_that_tells_nothing_of_snapshots_is_not_believed(site: Site) -> None:
    first = site.capture()
    assert first.marker is not None
    del first.marker["had_snapshots"]
    assert "may have been reverted" in (site.capture(first).full_reason or "")


def test_a_host_that_is_away_is_no_reason_to_read_everything() -> None:
    def away(*_: Any) -> Any:
        raise Unavailable("the host is away")

    def broken(*_: Any) -> Any:
        raise VBackupError("Error caused by file x.vmdk")

    with pytest.raises(Unavailable):
        ask(away, 100, "*")
    assert "x.vmdk" in str(ask(broken, 100, "*"))


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5))), st.integers(1, 9))
def test_areas_are_merged_cut_and_cover_the_disk(size: int, ranges: list[tuple[int, int]], page: int) -> None:
    ranges.sort()
    asked: list[int] = []

    def answer(offset: int, _: str) -> SimpleNamespace:
        asked.append(offset)
        page_end = next((r[0] + page for r in ranges if r[0] * 512 >= offset), size)
        areas = ((at * 512, count * 512) for at, count in ranges if offset <= at * 512 < page_end * 512)
        return _answer(offset, page_end * 512 - offset, *areas)

    areas = ask(answer, size * 512, "*")
    assert isinstance(areas, Areas)
    assert all(offset < size * 512 for offset in asked)
    extents = list(cover(areas.extents(Kind.UNCHANGED), size * 512))
    data = {i for e in extents if e.kind is Kind.DATA for i in range(e.offset // 512, e.end // 512)}
    assert data == {i for at, count in ranges for i in range(at, min(at + count, size))}
