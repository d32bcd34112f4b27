"""What happens to a machine between the plan and the moment, or while that is being made."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import CaptureLost, GuestError, Quiesce
from vbackup_vsphere import snapshot

from .captures import MACHINE, MIB, Site, Sites

_RUNNING = "guestToolsRunning"


def test_a_disk_that_is_added_before_the_moment(site: Site, vcsim: Simulator) -> None:
    with pytest.raises(CaptureLost, match="was added") as caught:
        site.capture(moment=lambda: vcsim.add_disk(MACHINE, 4 * MIB) and None)
    assert caught.value.transient
    assert site.snapshots() == []
    assert len(site.capture().disks) == 2


def test_a_disk_that_becomes_independent_before_the_moment(site: Site) -> None:
    def change() -> None:
        devices = site.get("config.hardware.device")
        disk = next(one for one in devices if isinstance(one, vim.vm.device.VirtualDisk))
        disk.backing.diskMode = "independent_persistent"
        edit = vim.vm.device.VirtualDeviceSpec(operation="edit", device=disk)
        site.do(site.vm.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[edit])))

    with pytest.raises(CaptureLost, match="became independent"):
        site.capture(moment=change)
    assert site.snapshots() == []


def _off(make_site: Sites, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Return a machine whose guest shut itself down."""
    vcsim.add_vm("off", on=False, disks=[MIB])
    site = make_site(name="off", read=["datastore"])
    session = site.vsphere.site.session
    get = session.get

    def clean(ref: Any, *paths: str, **how: Any) -> dict[str, Any]:  # which the simulator does not tell
        return get(ref, *paths, **how) | ({"runtime.cleanPowerOff": True} if "runtime.cleanPowerOff" in paths else {})

    monkeypatch.setattr(session, "get", clean)
    return site


def test_a_machine_that_is_off_is_at_rest(make_site: Sites, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _off(make_site, vcsim, monkeypatch).capture(quiesce=Quiesce.YES).quiesced


def test_a_machine_that_is_switched_on_before_the_moment(
    make_site: Sites, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _off(make_site, vcsim, monkeypatch)
    with pytest.raises(GuestError, match="cannot be frozen"):
        site.capture(quiesce=Quiesce.YES, moment=lambda: vcsim.power("off", on=True))
    vcsim.power("off", on=False)
    copy = site.capture(quiesce=Quiesce.TRY, moment=lambda: vcsim.power("off", on=True))
    assert not copy.quiesced
    assert any("crash-consistent" in note for note in copy.notes)


@pytest.mark.parametrize("quiesce", [Quiesce.YES, Quiesce.TRY])
def test_a_machine_that_is_switched_on_in_the_moment(
    make_site: Sites, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch, quiesce: Quiesce
) -> None:
    site = _off(make_site, vcsim, monkeypatch)
    create = snapshot.create

    def switched_on(*args: Any, **how: Any) -> Any:
        vcsim.power("off", on=True)
        return create(*args, **how)

    monkeypatch.setattr(snapshot, "create", switched_on)
    if quiesce is Quiesce.YES:
        with pytest.raises(CaptureLost, match="was switched on"):
            site.capture(quiesce=quiesce)
    else:
        copy = site.capture(quiesce=quiesce)
        assert not copy.quiesced
        assert any("was switched on" in note for note in copy.notes)
    assert site.snapshots() == []


@pytest.mark.parametrize("fails", [1, 2])
def test_what_is_said_is_of_the_snapshot_that_was_kept(
    make_site: Sites, vcsim: Simulator, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    vcsim.tracking(late=True)
    vcsim.add_vm("new", disks=[MIB])
    vcsim.set("new", guest__toolsRunningStatus=_RUNNING)
    site = make_site(name="new", read=["datastore"], tracking="enable")
    create, freezes = snapshot.create, []

    def failing(*args: Any, quiesce: bool, **how: Any) -> Any:
        freezes.extend([True] * quiesce)
        if quiesce and len(freezes) == fails:
            raise GuestError("the guest does not freeze")
        return create(*args, quiesce=quiesce, **how)

    monkeypatch.setattr(snapshot, "create", failing)
    copy = site.capture(quiesce=Quiesce.TRY)
    assert len(freezes) == 2
    assert copy.quiesced == (fails == 1)
    assert len([note for note in copy.notes if "could not be frozen" in note]) == (fails == 2)
