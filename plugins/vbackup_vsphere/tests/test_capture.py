"""Captures: bytes, what is told beside them, and that nothing is left."""

from __future__ import annotations

import os
import random
import threading
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import (
    AccessDenied,
    Busy,
    CaptureLost,
    CaptureRequest,
    GuestError,
    NoSpace,
    NotFound,
    Quiesce,
    Unavailable,
    Unsupported,
    VBackupError,
)
from vbackup_vsphere.readers import datastore

from .captures import KIB, MACHINE, OTHER_OWNER, OWNER, Site, Sites, copy_all


def _tools(vcsim: Simulator, vm: str = MACHINE) -> None:
    vcsim.set(vm, guest__toolsRunningStatus="guestToolsRunning")


def test_full_and_incrementals_are_bit_exact(site: Site, vcsim: Simulator) -> None:
    rnd = random.Random(1)
    site.write(100 * KIB, rnd.randbytes(300 * KIB))
    copy = site.capture()
    assert copy.full_reason == "first backup of this disk"
    assert copy.disks == {k: site.content() for k in copy.disks}
    for _ in range(4):
        for _ in range(20):
            site.write(rnd.randrange(0, len(site.content()) - 9000), rnd.randbytes(rnd.randrange(1, 9000)))
        copy = site.capture(copy)
        assert copy.full_reason is None
        assert 0 < copy.read[next(iter(copy.read))] < len(site.content())
        assert copy.disks == {k: site.content() for k in copy.disks}
    assert site.snapshots() == []
    site.vsphere.close()
    assert vcsim.leaks() == {}


def test_what_is_written_after_the_moment_is_not_seen(site: Site) -> None:
    site.write(0, b"before")
    copy = site.capture(meanwhile=lambda: site.write(0, b"later!"))
    assert next(iter(copy.disks.values())).startswith(b"before")
    assert site.content().startswith(b"later!")


def test_a_disk_of_zeros_is_not_read(site: Site) -> None:
    copy = site.capture()
    assert not any(next(iter(copy.disks.values())))
    assert set(copy.read.values()) == {0}


@pytest.mark.parametrize("star", ["whole", "fault"])
def test_areas_in_use_that_are_not_told(site: Site, vcsim: Simulator, star: str) -> None:
    vcsim.tracking(star=star)
    site.write(5 * KIB, b"data")
    copy = site.capture()
    assert copy.disks == {k: site.content() for k in copy.disks}
    assert set(copy.read.values()) == {len(site.content())}
    assert bool([note for note in copy.notes if "not only what is in use" in note]) == (star == "fault")


@pytest.mark.parametrize("kind", ["NFS", "NFS41"])
def test_areas_in_use_are_believed_of_vmfs_only(site: Site, vcsim: Simulator, kind: str) -> None:
    vcsim.datastore(kind=kind)
    assert set(site.capture().read.values()) == {len(site.content())}


def test_a_stand_alone_host(make_vcsim: Any, make_site: Sites) -> None:
    simulator = make_vcsim(esx=True)
    site = make_site(simulator, name="ha-host_VM0", read=["datastore"])
    site.track()
    site.write(9, b"written")
    first = site.capture()
    site.write(70 * KIB, b"more")
    second = site.capture(first)
    assert second.full_reason is None
    assert second.disks == {k: site.content() for k in second.disks}
    assert site.vsphere.machines()[0].folder == "/ha-datacenter/vm"
    site.vsphere.close()
    assert simulator.leaks() == {}


def test_by_nfc_whole_disks_are_read(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(read=["nfc"])
    site.track()
    site.write(3 * KIB, b"something")
    first = site.capture()
    site.write(99 * KIB, b"more")
    second = site.capture(first)
    assert second.full_reason == "the nfc way reads whole disks"
    assert second.disks == {k: site.content() for k in second.disks}
    site.vsphere.close()
    assert vcsim.leaks() == {}


def test_a_machine_that_is_off(site: Site, vcsim: Simulator) -> None:
    vcsim.power(MACHINE, on=False)
    site.write(0, b"at rest")
    copy = site.capture(quiesce=Quiesce.YES)
    assert copy.disks == {k: site.content() for k in copy.disks}
    assert copy.notes == []


def test_the_guest_is_frozen(site: Site, vcsim: Simulator) -> None:
    _tools(vcsim)
    copy = site.capture(quiesce=Quiesce.YES)
    assert copy.quiesced
    assert copy.notes == []


def test_a_freeze_that_fails(site: Site, vcsim: Simulator) -> None:
    _tools(vcsim)
    vcsim.fault("CreateSnapshot_Task", "ApplicationQuiesceFault", "exceeded the time limit", times=2)
    copy = site.capture(quiesce=Quiesce.TRY)
    assert not copy.quiesced
    assert any("crash-consistent" in note for note in copy.notes)
    with pytest.raises(GuestError, match="could not be frozen"):
        site.capture(quiesce=Quiesce.YES)
    assert site.snapshots() == []


def test_no_tools_no_freeze(site: Site) -> None:
    copy = site.capture(quiesce=Quiesce.TRY)
    assert not copy.quiesced
    assert any("VMware Tools do not run" in note for note in copy.notes)
    with pytest.raises(GuestError, match="VMware Tools do not run"):
        site.capture(quiesce=Quiesce.YES)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("NoDiskSpace", NoSpace),
        ("FileLocked", Busy),
        ("FileFault", VBackupError),
        ("TooManySnapshotLevels", Unsupported),
    ],
)
def test_the_snapshot_cannot_be_made(site: Site, vcsim: Simulator, fault: str, kind: type[VBackupError]) -> None:
    vcsim.fault("CreateSnapshot_Task", fault, quiesced=False)
    with pytest.raises(kind, match=f"making a snapshot of {MACHINE}"):
        site.capture()
    assert site.snapshots() == []
    assert site.capture().disks


def test_the_snapshot_is_removed_by_somebody_else_in_mid_copy(
    site: Site, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datastore, "PAUSE", 0.01)  # the file is locked again, which may pass
    site.write(0, b"something to read")
    with pytest.raises(CaptureLost, match="removed by someone else"):
        site.capture(meanwhile=lambda: vcsim.remove_snapshot(MACHINE, site.snapshots()[0]))
    assert site.snapshots() == []


def test_the_machine_is_removed_in_mid_copy(site: Site, vcsim: Simulator) -> None:
    with pytest.raises(CaptureLost):
        site.capture(meanwhile=lambda: vcsim.destroy(MACHINE))


def test_the_session_expires_in_mid_copy(site: Site, vcsim: Simulator) -> None:
    site.write(0, os.urandom(600 * KIB))
    with site.vsphere.capture(MACHINE, CaptureRequest(OWNER, quiesce=Quiesce.NO)) as capture:
        vcsim.expire_sessions()
        copy = copy_all(capture)
        vcsim.expire_sessions()
    assert copy.disks == {k: site.content() for k in copy.disks}
    assert site.snapshots() == []
    site.vsphere.close()
    assert vcsim.leaks() == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), VBackupError("the store is full")])
def test_whatever_ends_a_capture_its_snapshot_goes(site: Site, error: BaseException) -> None:
    def fail() -> None:
        assert len(site.snapshots()) == 1
        raise error

    with pytest.raises(type(error)):
        site.capture(meanwhile=fail)
    assert site.snapshots() == []
    assert list(site.vsphere.site.captures.dead()) == []


def test_a_machine_whose_host_is_away(site: Site, vcsim: Simulator) -> None:
    vcsim.host_state(site.vsphere.site.session.name_of(site.get("runtime.host")))
    with pytest.raises(Unavailable, match="is not connected"):
        site.capture()


def test_an_unknown_machine(site: Site) -> None:
    with pytest.raises(NotFound, match="no machine nobody"), site.vsphere.capture("nobody", CaptureRequest(OWNER)):
        pass


def test_two_captures_of_one_machine(site: Site) -> None:
    request = CaptureRequest(OTHER_OWNER, quiesce=Quiesce.NO)
    with (
        site.vsphere.capture(MACHINE, CaptureRequest(OWNER, quiesce=Quiesce.NO)),
        pytest.raises(Busy),
        site.vsphere.capture(MACHINE, request),
    ):
        pass


@pytest.mark.parametrize(
    ("privilege", "message"),
    [
        ("VirtualMachine.State.CreateSnapshot", "making a snapshot"),
        ("VApp.Export", "cannot be read"),
        ("Datastore.Browse", "cannot be read"),
    ],
)
def test_a_missing_privilege_is_named(make_site: Sites, vcsim: Simulator, privilege: str, message: str) -> None:
    site = make_site(read=["nfc"] if privilege.startswith("VApp") else ["datastore"])
    vcsim.deny(privilege)
    with pytest.raises((AccessDenied, Unsupported), match=message) as caught:
        site.capture()
    assert privilege in str(caught.value)
    assert site.snapshots() == []


def test_the_members_of_a_group_share_a_moment(make_site: Sites, vcsim: Simulator) -> None:
    names = ["DC0_H0_VM0", "DC0_H0_VM1", "DC0_C0_RP0_VM0"]
    site = make_site(read=["datastore"], per_host=1, per_datastore=1)
    barrier, copies = threading.Barrier(len(names), timeout=60), {}

    def back_up(name: str) -> None:
        request = CaptureRequest(OWNER, quiesce=Quiesce.NO, moment=lambda: barrier.wait() and None)
        with site.vsphere.capture(name, request) as capture:
            copies[name] = copy_all(capture)

    workers = [threading.Thread(target=back_up, args=(name,)) for name in names]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(copies) == set(names)
    assert vcsim.state()["peak"]["snapshots"] == len(names)


def test_a_moment_that_never_comes(site: Site, vcsim: Simulator) -> None:
    def give_up() -> None:
        raise Unavailable("another machine of the group failed")

    with pytest.raises(Unavailable, match="another machine"):
        site.capture(moment=give_up)
    assert vcsim.calls().get("CreateSnapshot_Task", 0) == 0
    assert list(site.vsphere.site.captures.dead()) == []
