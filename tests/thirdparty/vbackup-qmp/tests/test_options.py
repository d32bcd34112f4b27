"""The configuration, and what ``vbackup doctor`` says of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from machine import Lab, QemuMachine, make
from pydantic import ValidationError
from vbackup_qmp.hypervisor import QmpHypervisor
from vbackup_qmp.options import QmpOptions

from vbackup.api import Level


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "machines"),
        ({"machines": {"web": {"socket": "web.qmp"}}}, "must be an absolute path"),
        ({"machines": {"web": {"socket": "/run/web.qmp", "disks": {"root": {"path": "/x", "format": "vmdk"}}}}}, "raw"),
        ({"machines": {"a/b": {"socket": "/run/web.qmp"}}}, "pattern"),
        ({"machines": {}, "scratch": "/" + "x" * 90}, "80 characters"),
        ({"machines": {}, "scrtch": "/x"}, "Extra inputs"),
    ],
)
def test_what_is_wrong_is_named(options: dict[str, object], said: str) -> None:
    """Before anything is asked of QEMU."""
    with pytest.raises(ValidationError, match=said):
        QmpOptions.model_validate(options)


def test_doctor_when_all_is_well(hypervisor: QmpHypervisor) -> None:
    """Programs, places and machines."""
    findings = hypervisor.check()
    programs = ["qemu-img", "qemu-io", "qemu-storage-daemon"]
    assert [finding.what for finding in findings] == [*programs, "scratch", "storage", "web"]
    assert {finding.level for finding in findings} == {Level.OK}
    assert "answers" in findings[-1].detail


def test_doctor_when_it_is_not(lab: Lab, short: Path, guest: QemuMachine) -> None:
    """Each finding says what to do about it."""
    guest.stop()
    (short / "no-monitor").touch()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short / "closed"))
        machines = {
            "off": {"socket": str(short / "missing")},
            "gone": {"socket": str(short / "closed")},
            "known": guest.options,
        }
        options = {"machines": machines, "scratch": lab.options["scratch"], "reserve": 1 << 60}
        findings = {finding.what: finding for finding in make(options, lab.state).check()}
    assert findings["scratch"].level is Level.ERROR
    assert findings["storage"].level is Level.WARNING
    assert (findings["off"].level, findings["gone"].level) == (Level.WARNING, Level.WARNING)
    assert findings["known"].level is Level.OK
    assert all(finding.hint for finding in findings.values() if finding.level is not Level.OK)


def test_doctor_without_qemu(hypervisor: QmpHypervisor, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, and where to get it."""
    monkeypatch.setenv("PATH", str(short))
    missing = [finding for finding in hypervisor.check() if finding.level is Level.ERROR]
    assert [finding.what for finding in missing] == ["qemu-img", "qemu-io", "qemu-storage-daemon"]
    assert all("apt install" in finding.hint for finding in missing)
