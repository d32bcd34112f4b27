"""Machines with disks in I/O threads are not ended by a backup."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from vbackup.api import CaptureRequest, Unsupported
from vbackup.testing.lab.factory import GuestFactory
from vbackup_libvirt import document, io_threads
from vbackup_libvirt.hypervisor import Libvirt

OWNER = "0" * 32
DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'{}/><source file='/x'/><target dev='{}' bus='{}'/>"
)
CONTROLLER = "<controller type='scsi' index='1' model='virtio-scsi'><driver iothread='1'/></controller>"


def test_a_running_machine_with_an_io_thread_is_refused_and_runs_on(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "extra.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "8M"], check=True)
    extra = DISK.format(" iothread='1'", "vdz", "virtio").replace("/x", str(path)) + "</disk>"
    guest = make_guest(metadata="<iothreads>1</iothreads>", extra_devices=extra)
    with hypervisor.capture(guest.name, CaptureRequest(OWNER)) as capture:
        assert [disk.key for disk in capture.disks] == ["vda", "vdz"]
    guest.start(paused=True)
    with pytest.raises(Unsupported, match="disk vdz is served in an I/O thread") as caught:
        hypervisor.capture(guest.name, CaptureRequest(OWNER)).__enter__()
    assert "9.0" in caught.value.hint
    assert guest.domain.isActive()
    monkeypatch.setattr(io_threads, "_SOUND", 0)  # as with a QEMU that is
    with hypervisor.capture(guest.name, CaptureRequest(OWNER)) as capture:
        assert [disk.key for disk in capture.disks] == ["vda", "vdz"]


@pytest.mark.parametrize(
    ("devices", "threads"),
    [
        (DISK.format("", "vda", "virtio") + "</disk>", [False]),
        (DISK.format(" iothread='2'", "vda", "virtio") + "</disk>", [True]),
        (
            DISK.format("", "vda", "virtio").replace("/>", "><iothreads><iothread id='1'/></iothreads></driver>", 1)
            + "</disk>",
            [True],
        ),
        (CONTROLLER + DISK.format("", "sda", "scsi") + "<address type='drive' controller='1'/></disk>", [True]),
        (CONTROLLER + DISK.format("", "sda", "scsi") + "<address type='drive' controller='0'/></disk>", [False]),
        (CONTROLLER + DISK.format("", "vda", "virtio") + "</disk>", [False]),
    ],
)
def test_where_io_threads_are_stated(devices: str, threads: list[bool]) -> None:
    domain = document.parse(f"<domain><devices>{devices}</devices></domain>")
    assert [disk.in_io_thread for disk in document.disks(domain)] == threads
