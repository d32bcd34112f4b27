"""What is refused before a byte is written, and what goes wrong later: nothing is left of either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    ConfigError,
    Corrupt,
    DiskDescription,
    NativeDocument,
    NoSpace,
    NotFound,
    PluginError,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    Run,
    Unavailable,
    Unsupported,
    VBackupError,
)
from vbackup.testing.lab.libvirtd import until
from vbackup_vsphere.restore import restore

from .restores import MIB, VCenter, contents, finish, libvirt_machine, runs, wanted, write

NAME = "DC0_C0_RP0_VM0"


@pytest.fixture
def vcenter(vcsim: Simulator, tmp_path: Path):
    vcenter = VCenter(vcsim, tmp_path / "state")
    yield vcenter
    vcenter.session.close()


@pytest.fixture
def make_vcenter(vcsim: Simulator, tmp_path: Path) -> Iterator[Callable[..., VCenter]]:
    made: list[VCenter] = []

    def make(**options: Any) -> VCenter:
        made.append(VCenter(vcsim, tmp_path / "state", **options))
        return made[-1]

    yield make
    for one in made:
        one.session.close()


def nothing_is_left(vcenter: VCenter, before: list[str]) -> None:
    assert vcenter.names == before
    assert vcenter.simulator.state()["leases"] == []
    assert vcenter.journals() == []
    assert vcenter.sweep() == []


def test_entering_makes_nothing(vcenter: VCenter) -> None:
    before = vcenter.names
    with vcenter.restoring(libvirt_machine(), name="copy") as opened:
        assert set(opened.disks) == {"vda", "vdb"}
        assert opened.notes
        assert vcenter.names == before
        assert vcenter.journals() == []
    assert "ImportVApp" not in vcenter.simulator.calls()


def test_a_name_that_is_taken(vcenter: VCenter) -> None:
    with pytest.raises(AlreadyExists, match=NAME), vcenter.restoring(libvirt_machine(), name=NAME):
        pass


def test_a_network_that_is_not_there_names_those_that_are(vcenter: VCenter) -> None:
    machine = libvirt_machine(nics=({"mac": "52:54:00:12:34:56", "network": "br-lan"},))
    with pytest.raises(NotFound, match=r"br-lan.*VM Network"), vcenter.restoring(machine):
        pass


def test_networks_are_mapped(make_vcenter: Callable[..., VCenter]) -> None:
    vcenter = make_vcenter(networks={"br-lan": "DC0_DVPG0", "lost": "nowhere"})
    machine = libvirt_machine(nics=({"mac": "52:54:00:12:34:56", "network": "br-lan"},))
    vcenter.restore(machine, contents(machine))
    assert vcenter.describe("web").nics[0].network == "DC0_DVPG0"
    wrong = libvirt_machine(nics=({"network": "lost"},))
    with pytest.raises(NotFound, match="nowhere"), vcenter.restoring(wrong, name="copy"):
        pass


@pytest.mark.parametrize("option", ["folder", "pool", "datastore"])
def test_a_place_that_is_not_there_names_those_that_are(make_vcenter: Callable[..., VCenter], option: str) -> None:
    vcenter = make_vcenter(**{option: "/DC0/nowhere"})
    with pytest.raises(NotFound, match=r"nowhere.*there are .*(DC0|LocalDS_0)"), vcenter.restoring(libvirt_machine()):
        pass


def test_a_choice_that_is_the_users(make_vcenter: Callable[..., VCenter]) -> None:
    vcenter = make_vcenter(pool=None)
    with pytest.raises(ConfigError, match=r"set `pool:`.*DC0_C0"), vcenter.restoring(libvirt_machine()):
        pass


def test_disks_that_can_never_fit(vcenter: VCenter) -> None:
    machine = libvirt_machine(disks=(DiskDescription(key="vda", size=60 << 40),))
    with pytest.raises(NoSpace, match="LocalDS_0"), vcenter.restoring(machine):
        pass


@pytest.mark.parametrize(
    "request_",
    [RestoreRequest(disks={"vda": Path("/tmp/x")}), RestoreRequest(format="qcow2"), RestoreRequest("n" * 81)],
)
def test_what_vsphere_cannot_do(vcenter: VCenter, request_: RestoreRequest) -> None:
    machine = libvirt_machine()
    with (
        pytest.raises(Unsupported) as raised,
        restore(vcenter.session, vcenter.context, machine, wanted(machine), {}, request_),
    ):
        pass
    assert raised.value.hint


def test_memory_is_left_out_and_said_so(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    disks = [*wanted(machine), RestoreDisk("memory", MIB, "raw", is_memory=True)]
    with restore(vcenter.session, vcenter.context, machine, disks, {}, RestoreRequest()) as opened:
        assert "memory" not in opened.disks
        assert any("memory is left out" in note for note in opened.notes)


@pytest.mark.parametrize("text", ["{", '{"format": 2}', '{"cpus": 0}', '{"disks": [{"key": 2000, "unit": 0}]}', "{}"])
def test_a_document_that_lies(vcenter: VCenter, text: str) -> None:
    machine = libvirt_machine(native=NativeDocument(kind="vsphere-config", text=text))
    with pytest.raises(Corrupt), vcenter.restoring(machine, name="copy"):
        pass


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("InsufficientStorageSpace", NoSpace), ("NoDiskSpace", NoSpace), ("HostNotReachable", Unavailable)],
)
def test_an_import_that_is_refused(vcenter: VCenter, fault: str, kind: type[VBackupError]) -> None:
    before, machine = vcenter.names, libvirt_machine()
    break_it = lambda _: vcenter.simulator.fault("ImportVApp", fault)  # noqa: E731
    with pytest.raises(kind, match="web"):
        vcenter.attempt(machine, break_it, write(contents(machine)))
    nothing_is_left(vcenter, before)


@pytest.mark.parametrize(
    "privilege",
    [
        "VApp.Import",
        "VirtualMachine.Inventory.Create",
        "VirtualMachine.Config.AddNewDisk",
        "Datastore.AllocateSpace",
        "Network.Assign",
        "Resource.AssignVMToPool",
        "VirtualMachine.Config.AdvancedConfig",
    ],
)
def test_a_privilege_that_is_missing_is_named(vcenter: VCenter, privilege: str) -> None:
    before, machine = vcenter.names, libvirt_machine()
    vcenter.simulator.deny(privilege)
    with pytest.raises(AccessDenied, match=privilege):
        vcenter.attempt(machine, write(contents(machine)), finish)
    nothing_is_left(vcenter, before)


def test_a_lease_that_fails(vcenter: VCenter) -> None:
    before, machine = vcenter.names, libvirt_machine()
    vcenter.simulator.lease_fault("InsufficientStorageSpace")
    with pytest.raises(NoSpace):
        vcenter.attempt(machine, write(contents(machine)))
    nothing_is_left(vcenter, before)


@pytest.mark.parametrize("broken", [{"status": 503}, {"status": 500}, {"status": 403}, {"cut_upload": 1 << 20}])
def test_an_upload_that_is_refused(vcenter: VCenter, broken: dict[str, int]) -> None:
    before, machine = vcenter.names, libvirt_machine()
    break_it = lambda _: vcenter.simulator.http_fault("/nfc/", method="POST", **broken)  # noqa: E731
    with pytest.raises((Unavailable, AccessDenied)):
        vcenter.attempt(machine, break_it, write(contents(machine)))
    nothing_is_left(vcenter, before)


def test_a_source_that_fails_in_mid_upload(vcenter: VCenter) -> None:
    before, machine = vcenter.names, libvirt_machine()

    def half() -> Iterator[Run]:
        yield Run(0, MIB, b"x" * MIB)
        raise Corrupt("a chunk")

    with pytest.raises(Corrupt):
        vcenter.attempt(machine, write(contents(machine), "vdb"), lambda opened: opened.disks["vda"].write(half()))
    nothing_is_left(vcenter, before)


def test_a_disk_that_was_not_written(vcenter: VCenter) -> None:
    before, machine = vcenter.names, libvirt_machine()
    with pytest.raises(PluginError, match="vdb"):
        vcenter.attempt(machine, write(contents(machine), "vda"), finish)
    nothing_is_left(vcenter, before)


def test_leaving_without_an_end(vcenter: VCenter) -> None:
    before, machine = vcenter.names, libvirt_machine()
    with vcenter.restoring(machine) as opened:
        opened.disks["vda"].write(runs(contents(machine)["vda"]))
        assert len(vcenter.names) > len(before)
    nothing_is_left(vcenter, before)
    assert vcenter.simulator.calls()["HttpNfcLeaseAbort"] == 1


def test_a_lease_that_times_out_in_mid_upload(make_vcsim: Callable[..., Simulator], tmp_path: Path) -> None:
    vcenter = VCenter(make_vcsim(lease_timeout="1s"), tmp_path / "state")
    before, machine = vcenter.names, libvirt_machine()

    def slow(opened: Restoration) -> Iterator[Run]:
        yield Run(0, MIB, b"x" * MIB)
        vcenter.simulator.fault("HttpNfcLeaseProgress", "Timedout", times=1000)
        until(lambda: opened._making._lease.lost is not None, "the lease to be lost")
        yield Run(MIB, 2 * MIB, b"y" * 2 * MIB)

    def write_slowly(opened: Restoration) -> None:
        opened.disks["vda"].write(slow(opened))

    with closing(vcenter.session):
        with pytest.raises(Unavailable, match="lease"):
            vcenter.attempt(machine, write(contents(machine), "vdb"), write_slowly, finish)
        nothing_is_left(vcenter, before)


def test_a_session_that_ends_in_mid_upload(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    data = contents(machine)
    with vcenter.restoring(machine) as opened:
        opened.disks["vda"].write(runs(data["vda"]))
        vcenter.simulator.expire_sessions()
        opened.disks["vdb"].write(runs(data["vdb"]))
        opened.finish()
    made = vcenter.describe("web")
    assert {vcenter.bytes_of("web", int(disk.key)) for disk in made.disks} == set(data.values())


def test_a_machine_that_cannot_be_started_is_there(vcenter: VCenter) -> None:
    machine = libvirt_machine()
    data = contents(machine)
    with vcenter.restoring(machine, start=True) as opened:
        for key, disk in opened.disks.items():
            disk.write(runs(data[key]))
        vcenter.simulator.fault("PowerOnVM_Task", "InsufficientResourcesFault")
        said = opened.finish()
        assert said.endswith("could not be started")
        assert any("could not be started" in note for note in opened.notes)
    assert "web" in vcenter.names
    assert vcenter.journals() == []
