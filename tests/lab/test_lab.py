"""The lab keeps its promises; everything else is built on them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup.testing.lab.namespace import LabError

pytestmark = pytest.mark.guest


def test_the_guest_finds_its_own_data_after_a_reboot(make_guest: GuestFactory) -> None:
    guest = make_guest(boot=True)
    guest.start()
    guest.wait_ready()
    assert "first boot" in guest.found
    digest = guest.exec("mkdir /data/keep; head -c 3000000 /dev/urandom >/data/keep/a; sha256sum /data/keep/a").split()[
        0
    ]
    guest.shutdown()
    guest.start()
    guest.wait_ready()
    assert "FOUND line " in guest.found
    assert digest in guest.found


def test_freezing_stops_writes_until_the_thaw(make_guest: GuestFactory) -> None:
    guest = make_guest(boot=True)
    guest.start()
    guest.wait_ready()
    assert guest.agent("guest-fsfreeze-freeze") == 1
    assert guest.agent("guest-fsfreeze-status") == "frozen"
    assert guest.agent("guest-fsfreeze-thaw") == 1
    guest.exec("echo after >/data/after; sync")


def test_machines_survive_a_killed_libvirtd(make_guest: GuestFactory, libvirtd: Libvirtd) -> None:
    guest = make_guest()
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0x11 0 64k")
    pid = guest.pid
    libvirtd.restart(signal.SIGKILL)
    assert guest.pid == pid
    guest.qemu_io("vda", "read -P 0x11 0 64k")
    guest.kill_qemu()
    assert not guest.domain.isActive()


def test_qemu_io_says_what_failed(make_guest: GuestFactory) -> None:
    guest = make_guest(
        disks=(Disk("vda", format="raw"), Disk("sda", bus="scsi"), Disk("sdb", bus="sata"), Disk("hda", bus="ide"))
    )
    guest.start(paused=True)
    for target in guest.disks:
        guest.qemu_io(target, "write -P 0x22 1M 64k", "read -P 0x22 1M 64k", "discard 1M 64k")
    with pytest.raises(LabError, match="Pattern verification failed"):
        guest.qemu_io("vda", "read -P 0x33 0 64k")
    with pytest.raises(LabError, match="Input/output error"):
        guest.qemu_io("vda", "write 1G 64k")


def test_a_machine_with_uefi_and_tpm_starts_and_leaves_nothing(make_guest: GuestFactory) -> None:
    guest = make_guest(uefi=True, tpm=True)
    guest.start(paused=True)
    nvram, tpm = Path(f"/var/lib/libvirt/qemu/nvram/{guest.name}_VARS.fd"), Path(f"/var/lib/libvirt/swtpm/{guest.uuid}")
    assert nvram.exists()
    assert tpm.exists()
    guest.remove()
    assert not nvram.exists()
    assert not tpm.exists()


_ABANDONED = """
import os, pathlib, signal, sys
from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd
with Libvirtd() as libvirtd:
    guest = Guest.define(libvirtd, Machine("abandoned", pathlib.Path(sys.argv[1]), (Disk("vda"),)))
    guest.start(paused=True)
    print(libvirtd.pid, guest.pid, libvirtd.root, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_survives_the_death_of_its_user(no_libvirtd: None, tmp_path: Path) -> None:
    """kill -9 leaves no time to clean up; the keeper does it."""
    run = subprocess.run([sys.executable, "-c", _ABANDONED, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr
    *pids, root = run.stdout.split()
    for pid in pids:
        _wait_for_the_end_of(int(pid))
    until(lambda: not Path(root).exists(), "the keeper to remove its files")


def _wait_for_the_end_of(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([handle], [], [], 30)[0], f"process {pid} lives on"
    os.close(handle)
