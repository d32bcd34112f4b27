"""Reaching libvirt, and what is said when it is not reached."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vbackup.api import ConfigError, Level, Unavailable
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.libvirtd import Libvirtd
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.node import host_of

from .conftest import Hypervisors, backup


def test_machines_are_listed(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """With their identity and state."""
    off, on = make_guest(), make_guest()
    on.start(paused=True)
    found = {ref.name: ref for ref in hypervisor.machines()}
    assert (found[off.name].id, found[off.name].running) == (off.uuid, False)
    assert (found[on.name].id, found[on.name].running) == (on.uuid, True)


@pytest.mark.parametrize("uri", ["qemu:///system?socket=/nowhere/sock", "qemu+ssh://nobody@127.0.0.1:1/system"])
def test_an_unreachable_libvirt(make_hypervisor: Hypervisors, uri: str) -> None:
    """Transient, and the doctor says so."""
    hypervisor = make_hypervisor(uri)
    with pytest.raises(Unavailable) as caught:
        hypervisor.machines()
    assert caught.value.transient
    assert uri in caught.value.message
    assert any(finding.level is Level.ERROR and finding.what == uri for finding in hypervisor.check())
    hypervisor.close()


@pytest.mark.parametrize("uri", ["xen:///system", "qemu:///elsewhere", "qemu+tcp://host/system", "qemu://host/system"])
def test_uris_whose_files_are_out_of_reach(uri: str) -> None:
    """They are refused with a hint."""
    with pytest.raises(ConfigError, match=r"qemu:///system|qemu\+ssh"):
        host_of(uri)


def test_a_restarted_libvirtd_is_reached_again(
    hypervisor: Libvirt, make_guest: GuestFactory, libvirtd: Libvirtd
) -> None:
    """By the next call."""
    guest = make_guest()
    assert guest.name in [ref.name for ref in hypervisor.machines()]
    libvirtd.restart()
    assert guest.name in [ref.name for ref in hypervisor.machines()]
    hypervisor.close()


def test_the_doctor_is_content_here(hypervisor: Libvirt) -> None:
    """And names versions and free space."""
    findings = hypervisor.check()
    assert {finding.level for finding in findings} == {Level.OK}
    assert {f.what for f in findings} >= {"libvirt-python", "libnbd", "qemu-img", "qemu-nbd", "scratch directory"}


def test_without_libvirt_python(tmp_path: Path) -> None:
    """The package can be imported and registered; using it says what to install."""
    script = f"""
import sys
sys.modules["libvirt"] = None
from pathlib import Path
import vbackup_libvirt
from vbackup.api import HypervisorContext, Unsupported
found = []
vbackup_libvirt.vbackup_register_hypervisors(found.append)
hypervisor = found[0](found[0].options(), HypervisorContext("lab", Path({str(tmp_path)!r})))
try:
    hypervisor.machines()
except Unsupported as error:
    print(error.hint)
print(hypervisor.check()[0].level)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["pip install 'vbackup[libvirt]'; it needs libvirt-dev, pkg-config and gcc", "error"]


def test_errors_are_not_printed(make_hypervisor: Hypervisors, capfd: pytest.CaptureFixture[str]) -> None:
    """libvirt's habit of writing to standard error is off."""
    with pytest.raises(Unavailable):
        make_hypervisor("qemu:///system?socket=/nowhere/sock").machines()
    assert capfd.readouterr().err == ""


def test_capturing_by_another_uri_of_the_same_libvirt(make_hypervisor: Hypervisors, make_guest: GuestFactory) -> None:
    """A socket may be named in the URI."""
    guest = make_guest()
    guest.start(paused=True)
    hypervisor = make_hypervisor("qemu:///system?socket=/run/libvirt/libvirt-sock")
    assert backup(hypervisor, guest.name).full_reasons == {"vda": "first backup of this disk"}


@pytest.fixture
def hung(libvirtd: Libvirtd) -> Iterator[Callable[[], None]]:
    """Have libvirtd hang until the end of the test."""
    yield lambda: os.kill(libvirtd.pid, signal.SIGSTOP)
    os.kill(libvirtd.pid, signal.SIGCONT)


def test_a_libvirtd_that_hangs_is_not_waited_for(
    hypervisor: Libvirt, hung: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as good as none."""
    monkeypatch.setattr("vbackup_libvirt.connection.OPENING", 0.5)
    hung()
    with pytest.raises(Unavailable, match="does not answer") as caught:
        hypervisor.machines()
    assert caught.value.transient
