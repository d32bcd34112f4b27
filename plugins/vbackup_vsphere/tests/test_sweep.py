"""Snapshots that dead captures left are removed; those of others never are. And consolidation is awaited."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import CaptureRequest, Quiesce, VBackupError
from vbackup_undo.maker import Maker
from vbackup_vsphere import tasks
from vbackup_vsphere.journal import CaptureEntry
from vbackup_vsphere.snapshot import new_name

from .captures import MACHINE, OTHER_OWNER, OWNER, Site

_FOREIGN = ["before the update", "vbackup-by-hand", "VEEAM BACKUP TEMPORARY SNAPSHOT"]


def _maker(owner: str = OWNER, *, dead: bool = True, **values: object) -> str:
    maker = Maker.here(owner, 0)
    changes = {"start": maker.start - 1, **values} if dead else values
    return maker.model_copy(update=changes).model_dump_json()


def _entry(site: Site, *names: str, owner: str = OWNER, uuid: str | None = None) -> CaptureEntry:
    found = site.vsphere.site.inventory.find(site.name)
    return CaptureEntry(
        owner=owner, machine=found.name, uuid=uuid or found.uuid, moid=found.moid, snapshots=tuple(names)
    )


def _journal(site: Site, entry: CaptureEntry) -> None:
    with site.vsphere.site.captures.open(entry.uuid) as journal:
        journal.write(entry)


def _journaled(site: Site) -> int:
    return len(list(site.vsphere.site.captures.dead()))


def test_a_dead_capture_is_swept_by_its_journal(site: Site) -> None:
    name = new_name(OWNER)
    site.snapshot(name, "its description got lost")
    _journal(site, _entry(site, name))
    assert site.vsphere.sweep(OTHER_OWNER) == []
    assert site.snapshots() == [name]
    assert site.vsphere.sweep(OWNER) == [f"removed the snapshot that a dead capture of {MACHINE} had left"]
    assert site.snapshots() == []
    assert _journaled(site) == 0
    assert site.vsphere.sweep(OWNER) == []


def test_a_dead_capture_is_swept_by_name_when_its_journal_is_lost(site: Site) -> None:
    for name in _FOREIGN:
        site.snapshot(name)
    site.snapshot(new_name(OWNER), _maker())
    assert len(site.vsphere.sweep(OWNER)) == 1
    assert site.snapshots() == _FOREIGN


def test_the_next_capture_sweeps_too(site: Site) -> None:
    site.snapshot(new_name(OWNER), _maker())
    name = new_name(OWNER)
    site.snapshot(name, "by its journal")
    _journal(site, _entry(site, name))
    copy = site.capture()
    assert copy.notes == []
    assert site.snapshots() == []


@pytest.mark.parametrize(
    ("name", "description"),
    [
        (new_name(OWNER), _maker(dead=False)),
        (new_name(OWNER), _maker(dead=False, machine="f" * 32, host="elsewhere", created=1)),
        (new_name(OWNER), _maker(host="backup2", boot="another")),
        (new_name(OWNER), _maker(host="backup2")),
        (new_name(OWNER), _maker(pids="1")),
        (new_name(OTHER_OWNER), _maker(OTHER_OWNER)),
        (new_name(OWNER), _maker(OTHER_OWNER)),
        (new_name(OWNER), "no JSON"),
        (new_name(OWNER), json.dumps({"owner": OWNER})),
        ("nightly", _maker()),
    ],
    ids=[
        "of this process",
        "of another host whose clock is behind",
        "of a cloned host",
        "of a container with our machine-id",
        "of a container with our name",
        "of another owner",
        "renamed",
        "described",
        "half",
        "another name",
    ],
)
def test_what_may_be_in_use_or_is_not_ours_stays(site: Site, name: str, description: str) -> None:
    site.snapshot(name, description)
    assert site.vsphere.sweep(OWNER) == []

    assert site.snapshots() == [name]


@pytest.mark.parametrize(("age", "left"), [(timedelta(hours=26), 1), (timedelta(days=8), 0)])
def test_what_another_host_made(site: Site, monkeypatch: pytest.MonkeyPatch, age: timedelta, left: int) -> None:
    """A large machine is copied for longer than a day, but not for a week."""
    site.snapshot(new_name(OWNER), _maker(dead=False, machine="f" * 32, host="elsewhere", created=1))
    now = site.vsphere.site.session.now()
    monkeypatch.setattr(site.vsphere.site.session, "now", lambda: now + age)
    assert len(site.vsphere.sweep(OWNER)) == 1 - left
    assert len(site.snapshots()) == left


def test_a_machine_that_is_gone_with_its_snapshot(site: Site, vcsim: Simulator) -> None:
    _journal(site, _entry(site, new_name(OWNER)))
    vcsim.destroy(MACHINE)
    assert site.vsphere.sweep(OWNER) == []
    assert _journaled(site) == 0


def test_a_living_capture_is_not_swept(site: Site) -> None:
    with site.vsphere.capture(MACHINE, CaptureRequest(OWNER, quiesce=Quiesce.NO)):
        assert site.vsphere.sweep(OWNER) == []
        assert len(site.snapshots()) == 1


def test_a_snapshot_whose_answer_never_came_is_found(
    site: Site, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = site.vsphere.site.session
    call = session.call

    def interrupted(what: str, work: Callable[[], Any], **more: Any) -> Any:
        answer = call(what, work, **more)
        if what.startswith("making a snapshot"):
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(session, "call", interrupted)
    vcsim.hold_task("CreateSnapshot_Task")
    watches = vcsim.calls().get("WaitForUpdatesEx", 0)
    pause = threading.Event()

    def release() -> None:
        while vcsim.calls().get("WaitForUpdatesEx", 0) == watches:  # until the removal waits for the creation
            pause.wait(0.01)
        vcsim.release_tasks()

    releasing = threading.Thread(target=release)
    releasing.start()
    with pytest.raises(KeyboardInterrupt):
        site.capture()
    releasing.join()
    assert vcsim.calls()["CreateSnapshot_Task"] == 1
    assert site.snapshots() == []


def test_the_snapshot_cannot_be_removed(site: Site, vcsim: Simulator) -> None:
    vcsim.fault("RemoveSnapshot_Task", "FileLocked", "the file is in use", times=1)
    with pytest.raises(VBackupError, match=f"removing the snapshot of {MACHINE}"):
        site.capture()
    assert len(site.snapshots()) == 1
    assert _journaled(site) == 1
    copy = site.capture()
    assert copy.notes == []
    assert site.snapshots() == []
    assert _journaled(site) == 0


def test_a_failing_capture_fails_with_its_own_error(site: Site, vcsim: Simulator) -> None:
    vcsim.fault("RemoveSnapshot_Task", "FileLocked", "the file is in use")

    def fail() -> None:
        raise VBackupError("the store is full")

    with pytest.raises(VBackupError, match="the store is full"):
        site.capture(meanwhile=fail)
    assert _journaled(site) == 1
    assert len(site.vsphere.sweep(OWNER)) == 1
    assert site.snapshots() == []


def test_what_cannot_be_removed_is_a_note_on_the_next_capture(site: Site, vcsim: Simulator) -> None:
    vcsim.fault("RemoveSnapshot_Task", "FileLocked", "the file is in use", times=3)
    with pytest.raises(VBackupError):
        site.capture()
    with pytest.raises(VBackupError):
        site.capture()
    assert _journaled(site) == 1
    vcsim.clear_faults()
    assert len(site.vsphere.sweep(OWNER)) == 1
    assert site.snapshots() == []
    assert _journaled(site) == 0


@pytest.mark.parametrize("fault", ["", "FileLocked"])
def test_layers_that_stay_are_consolidated(site: Site, vcsim: Simulator, fault: str) -> None:
    vcsim.lose_consolidation(fault=fault)
    if fault:
        with pytest.raises(VBackupError):
            site.capture()
        assert len(site.vsphere.sweep(OWNER)) == 1
    else:
        site.capture()
    assert not site.get("runtime.consolidationNeeded")
    assert vcsim.calls()["ConsolidateVMDisks_Task"] == 1
    assert _journaled(site) == 0


def test_a_consolidation_that_fails_is_tried_again(site: Site, vcsim: Simulator) -> None:
    vcsim.lose_consolidation()
    vcsim.fault("ConsolidateVMDisks_Task", "FileLocked", "unable to access file since it is locked")
    with pytest.raises(VBackupError, match=f"consolidating the disks of {MACHINE}"):
        site.capture()
    assert site.get("runtime.consolidationNeeded")
    assert _journaled(site) == 1
    assert len(site.vsphere.sweep(OWNER)) == 1
    assert not site.get("runtime.consolidationNeeded")
    assert _journaled(site) == 0


def test_consolidation_that_others_left_undone_is_told_and_left(site: Site, vcsim: Simulator) -> None:
    site.snapshot("of others")
    vcsim.lose_consolidation()
    vcsim.remove_snapshot(MACHINE, "of others")
    assert site.get("runtime.consolidationNeeded")
    site.vsphere.site.session.options = site.vsphere.site.options.model_copy(update={"read": ("nfc",)})
    copy = site.capture()
    assert any("needed consolidation before" in note for note in copy.notes)
    assert vcsim.calls().get("ConsolidateVMDisks_Task", 0) == 0
    assert _journaled(site) == 0


def test_a_long_removal_is_waited_for(site: Site, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "WATCHING", 1)
    vcsim.hold_task("RemoveSnapshot_Task")
    done = threading.Event()

    def release() -> None:
        while vcsim.calls().get("WaitForUpdatesEx", 0) < 4:
            done.wait(0.02)
        vcsim.expire_sessions()
        vcsim.release_tasks()

    releasing = threading.Thread(target=release)
    releasing.start()
    site.capture()
    releasing.join()
    assert site.snapshots() == []


def test_snapshots_of_all_kinds_in_a_tree(site: Site) -> None:
    site.snapshot("one")
    site.snapshot(new_name(OWNER), _maker())
    site.snapshot("two")
    assert len(site.vsphere.sweep(OWNER)) == 1
    assert site.snapshots() == ["one", "two"]
