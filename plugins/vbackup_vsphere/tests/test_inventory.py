"""Listing machines, and finding them again."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import MachineRef, NotFound, Unavailable
from vbackup_vsphere.inventory import Found, unique

from .captures import MACHINE, Site, Sites


def _by_name(site: Site) -> dict[str, MachineRef]:
    return {one.name: one for one in site.vsphere.machines()}


def test_machines_are_listed(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    vcsim.power("DC0_H0_VM1", on=False)
    listed = _by_name(site)
    assert {"DC0_H0_VM0", "DC0_H0_VM1", "DC0_C0_RP0_VM0", "DC0_C0_RP0_VM1", MACHINE} == set(listed)
    assert listed["DC0_H0_VM0"].running
    assert not listed["DC0_H0_VM1"].running
    assert (
        listed["DC0_H0_VM0"].id
        == site.vsphere.site.session.get(site.vsphere.site.inventory.find("DC0_H0_VM0").ref, "config.instanceUuid")[
            "config.instanceUuid"
        ]
    )


def test_folders_tags_and_attributes(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    vcsim.move(MACHINE, "prod/web")
    vcsim.tag(MACHINE, "backup", "daily")
    vcsim.tag(MACHINE, "owner", "web team")
    vcsim.attribute(MACHINE, "Cost centre", "4711")
    one = _by_name(site)[MACHINE]
    assert one.folder == "/DC0/vm/prod/web"
    assert one.labels == {("tag", "backup/daily"), ("tag", "owner/web team"), ("Cost centre", "4711")}
    site.vsphere.close()
    assert vcsim.leaks() == {}


def test_tags_that_cannot_be_read_are_an_error(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    vcsim.http_fault("/rest/", status=503, times=9)
    with pytest.raises(Unavailable):
        site.vsphere.machines()
    vcsim.clear_faults()
    assert site.vsphere.machines()
    site.vsphere.close()
    assert vcsim.leaks() == {}


def test_machines_of_one_name_are_told_apart(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    ids = [vcsim.add_vm("twin", folder=folder) for folder in ("a", "b")]
    listed = _by_name(site)
    assert {f"twin ({moid})" for moid in ids} <= set(listed)
    assert "twin" not in listed
    assert site.vsphere.site.inventory.find(f"twin ({ids[1]})").moid == ids[1]


def test_a_name_that_looks_like_one_of_ours() -> None:
    def found(name: str, moid: str) -> Found:
        return Found(vim.VirtualMachine(moid), name, moid, running=False, folder="", is_template=False)

    named = unique([found("a", "vm-1"), found("a", "vm-2"), found("a (vm-1)", "vm-3")])
    assert len({one.name for one in named}) == 3


def test_escaped_names_stay_escaped(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    vcsim.add_vm("either%2for")
    assert "either%2for" in _by_name(site)
    site.name = "either%2for"
    assert site.capture().description.name == "either%2for"


def test_agents_that_vsphere_makes_for_itself_are_left_out(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    managed = vim.ext.ManagedByInfo(extensionKey="com.vmware.vim.eam", type="cluster-agent")
    site.do(site.vm.ReconfigVM_Task(vim.vm.ConfigSpec(managedBy=managed)))
    assert MACHINE not in _by_name(site)


@pytest.mark.parametrize("listed", [True, False])
def test_a_machine_that_was_renamed_and_moved_since_it_was_listed(
    make_site: Sites, vcsim: Simulator, listed: bool
) -> None:
    site = make_site(read=["datastore"])
    if listed:
        site.vsphere.machines()
    vcsim.rename(MACHINE, "renamed")
    vcsim.move("renamed", "elsewhere")
    if listed:
        assert site.vsphere.site.inventory.find(MACHINE).ref == site.vsphere.site.inventory.find("renamed").ref
        with_old_name = site.vsphere.site.inventory.find(MACHINE)
        assert with_old_name.uuid
    else:
        with pytest.raises(NotFound):
            site.capture()
    site.name = "renamed"
    assert site.capture().description.name == "renamed"


def test_a_renamed_machine_makes_way_for_one_that_took_its_name(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    site.vsphere.machines()
    vcsim.rename(MACHINE, "web-old")
    moid = vcsim.add_vm(MACHINE)
    assert site.vsphere.site.inventory.find(MACHINE).moid == moid


def test_a_rename_between_runs_costs_nothing(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(read=["datastore"])
    site.track()
    first = site.capture()
    vcsim.rename(MACHINE, "renamed")
    vcsim.move("renamed", "elsewhere")
    site.name = "renamed"
    assert site.capture(first).full_reason is None


def test_a_machine_made_anew_under_its_name_is_another_one(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(read=["datastore"])
    site.track()
    first = site.capture()
    vcsim.destroy(MACHINE)
    vcsim.add_vm(MACHINE, tracking=True)
    second = site.capture(first)
    assert second.full_reason is not None
    assert second.marker != first.marker


def test_a_machine_whose_files_are_out_of_reach_is_listed(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site()
    vcsim.set(MACHINE, runtime__connectionState="inaccessible")
    assert MACHINE in _by_name(site)
    with pytest.raises(Unavailable, match="inaccessible"):
        site.capture()


@pytest.mark.parametrize(
    ("status", "answer"),
    [("guestToolsRunning", True), ("guestToolsNotRunning", False), ("guestToolsExecutingScripts", False)],
)
def test_whether_the_guest_answers(make_site: Sites, vcsim: Simulator, status: str, answer: bool) -> None:
    site = make_site()
    vcsim.set(MACHINE, guest__toolsRunningStatus=status)
    assert site.vsphere.answers(MACHINE) is answer


def test_a_stand_alone_host_has_no_tags(make_vcsim: Any, make_site: Sites) -> None:
    simulator = make_vcsim(esx=True)
    site = make_site(simulator, name="ha-host_VM0")
    assert {one.labels for one in site.vsphere.machines()} == {frozenset()}
    assert not [call for call in simulator.calls() if "/rest" in call or "/api" in call]
