"""What the doctor and the self-test tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from click.testing import CliRunner

from tests.vcsim.simulator import Simulator
from vbackup.api import AccessDenied, ConfigError, Finding, Level, VBackupError
from vbackup_vsphere import privileges
from vbackup_vsphere.command import vsphere as command
from vbackup_vsphere.hypervisor import Vsphere
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.selftest import selftest

from .captures import MACHINE, Site, Sites, connect


def _wrong(findings: Sequence[Finding]) -> list[Finding]:
    return [one for one in findings if one.level is not Level.OK]


def test_the_doctor_is_content_here(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(tracking="enable")
    findings = site.vsphere.check()
    assert _wrong(findings) == []
    assert any("vCenter" in one.detail for one in findings)
    site.vsphere.close()
    assert vcsim.leaks() == {}


def test_a_stand_alone_host(make_vcsim: Any, make_site: Sites) -> None:
    findings = make_site(make_vcsim(esx=True), name="ha-host_VM0", tracking="enable").vsphere.check()
    assert _wrong(findings) == []
    assert any("stand-alone ESXi" in one.detail for one in findings)


def test_machines_without_tracking_are_told(make_site: Sites) -> None:
    wrong = _wrong(make_site().vsphere.check())
    assert [one.level for one in wrong] == [Level.WARNING]
    assert "off for 5 of 5 machines" in wrong[0].detail
    assert "tracking: enable" in wrong[0].hint


def _all_privileges() -> list[privileges.Privilege]:
    options = VsphereOptions.model_validate(
        {"host": "h", "user": "u", "password": {"env": "P"}, "vddk": {"libdir": "/opt/vddk"}}
    )
    wanted = [*privileges.for_backup(options), *privileges.for_restore(options)]
    return sorted({one.id: one for one in wanted}.values(), key=lambda one: one.id)


def test_each_missing_privilege_is_named(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(tracking="enable", vddk=vcsim.vddk())
    for privilege in _all_privileges():
        vcsim.deny(privilege.id, enforce=False)
    told = " ".join(one.detail for one in _wrong(site.vsphere.check()))
    assert [one.id for one in _all_privileges() if f"missing: {one.id} on " not in told] == []


def test_a_privilege_that_is_missing_on_one_machine(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(tracking="enable")
    moid = site.vsphere.site.inventory.find(MACHINE).moid
    vcsim.deny("VirtualMachine.State.RemoveSnapshot", moid, enforce=False)
    wrong = _wrong(site.vsphere.check())
    assert [(one.what, one.level) for one in wrong] == [("privilege for backups", Level.ERROR)]
    assert f"VirtualMachine.State.RemoveSnapshot on {MACHINE} (" in wrong[0].detail


def test_a_privilege_for_restores_only_is_a_warning(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(tracking="enable")
    vcsim.deny("VApp.Import", enforce=False)
    assert [(one.what, one.level) for one in _wrong(site.vsphere.check())] == [
        ("privilege for restores", Level.WARNING)
    ]


def test_a_host_that_cannot_be_logged_in_to(make_site: Sites, vcsim: Simulator) -> None:
    wrong = _wrong(make_site(user="nobody").vsphere.check())
    assert [one.level for one in wrong] == [Level.ERROR]
    assert "nobody" in wrong[0].detail


def test_vddk_that_is_not_there(make_site: Sites, tmp_path: Any) -> None:
    site = make_site(tracking="enable", vddk={"libdir": str(tmp_path)})
    assert [one.what for one in _wrong(site.vsphere.check())] == ["VDDK"]
    only = make_site(tracking="enable", read=["vddk"])
    assert [one.what for one in _wrong(only.vsphere.check())] == ["VDDK"]


def test_the_self_test(site: Site, vcsim: Simulator) -> None:
    lines: list[str] = []
    vsphere = connect(vcsim, site.vsphere.site.context.state_dir, vddk=vcsim.vddk())
    site.write(0, b"something")
    assert selftest(vsphere.site, MACHINE, lines.append)
    vsphere.close()
    report = "\n".join(lines)
    for expected in (
        "by vddk: ok",
        "by datastore: ok",
        "by nfc: ok",
        "areas in use",
        "nothing is left: ok",
        "result: ok",
    ):
        assert expected in report
    assert site.snapshots() == []


def test_the_self_test_names_nothing(site: Site, vcsim: Simulator) -> None:
    lines: list[str] = []
    vcsim.http_fault("/folder/", status=403, times=9)
    vcsim.lose_consolidation(fault="FileLocked")
    assert not selftest(site.vsphere.site, MACHINE, lines.append)
    report = "\n".join(lines)
    assert "result: FAILED" in report
    for name in (MACHINE, vcsim.host, f" {vcsim.user}", vcsim.password, "LocalDS_0"):
        assert name not in report


class _Context:
    json = False

    def __init__(self, **known: Vsphere) -> None:
        self._known = known
        self.lines: list[str] = []

    def hypervisors(self, kind: str) -> dict[str, Vsphere]:
        assert kind == "vsphere"
        return self._known

    def write(self, line: str) -> None:
        self.lines.append(line)


def _run(context: _Context, *args: str) -> Any:
    return CliRunner().invoke(command, ["selftest", *args], obj=context, standalone_mode=False)


def test_the_command(site: Site) -> None:
    context = _Context(vc=site.vsphere)
    assert _run(context, "--vm", MACHINE).return_value == 0
    assert context.lines[-1] == "result: ok"


@pytest.mark.parametrize(("known", "args"), [(0, []), (2, []), (1, ["--hypervisor", "other"])])
def test_the_command_needs_one_vsphere(site: Site, known: int, args: list[str]) -> None:
    result = _run(_Context(**{f"vc{i}": site.vsphere for i in range(known)}), "--vm", MACHINE, *args)
    assert isinstance(result.exception, VBackupError)
    assert not isinstance(result.exception, AccessDenied)
    assert isinstance(result.exception, ConfigError) or known == 1
