"""The same by ssh, and with the libvirt of one user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vbackup.api import CaptureRequest, Level, Quiesce, RestoreRequest
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.libvirtd import Libvirtd
from vbackup_qemu.host import SshHost
from vbackup_qemu.tests.conftest import ssh, sshd  # noqa: F401 - fixtures

from .conftest import MIB, OWNER, Hypervisors, backup, copy_all, restore
from .test_running import assert_exact

NOBODY = 65534


def test_by_ssh(
    libvirtd: Libvirtd,
    sshd: tuple[int, Path],  # noqa: F811
    ssh: SshHost,  # noqa: F811
    images: Path,
    make_hypervisor: Hypervisors,
    make_guest: GuestFactory,
) -> None:
    """Full, incremental, off, restored and started: sockets are tunnelled, files handled over there."""
    port, directory = sshd
    uri = f"qemu+ssh://root@127.0.0.1:{port}/system?keyfile={directory}/key"
    hypervisor = make_hypervisor(uri, storage=images)
    assert {finding.level for finding in hypervisor.check()} == {Level.OK}
    guest = make_guest(uefi=True)
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0xaa 0 8M")
    full = backup(hypervisor, guest.name)
    assert set(full.files) == {"nvram"}
    guest.qemu_io("vda", "write -P 0xbb 4M 1M")
    first = backup(hypervisor, guest.name, full)
    assert first.read == {"vda": MIB}
    guest.destroy()
    off = backup(hypervisor, guest.name, first)
    assert off.read == {"vda": 0}
    restore(hypervisor, off, RestoreRequest(name="copy", start=True))
    copy = make_guest.adopt("copy")
    assert copy.domain.isActive()
    assert_exact(copy, off.disks)
    hypervisor.close()


def test_memory_by_ssh(
    libvirtd: Libvirtd,
    sshd: tuple[int, Path],  # noqa: F811
    ssh: SshHost,  # noqa: F811
    images: Path,
    make_hypervisor: Hypervisors,
    make_guest: GuestFactory,
) -> None:
    """Saved, read, written and gone on from over there."""
    port, directory = sshd
    hypervisor = make_hypervisor(f"qemu+ssh://root@127.0.0.1:{port}/system?keyfile={directory}/key", storage=images)
    guest = make_guest(uefi=True)
    guest.start()
    with hypervisor.capture(guest.name, CaptureRequest(OWNER, quiesce=Quiesce.NO, memory=True)) as capture:
        copy = copy_all(capture)
    assert "memory" in copy.disks, copy.notes
    guest.destroy()
    said, notes = restore(hypervisor, copy, RestoreRequest(start=True, overwrite=True))
    assert said.endswith("goes on where it was"), notes
    hypervisor.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of a user without privileges."""
    with tempfile.TemporaryDirectory(prefix="vb-home-") as directory:
        os.chown(directory, NOBODY, NOBODY)
        yield Path(directory)


SESSION = """
import subprocess, sys, threading
from pathlib import Path
import libvirt, libvirt_qemu
from vbackup.api import *
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.options import LibvirtOptions
home = Path(sys.argv[1])
sys.path.insert(0, sys.argv[2])
from vbackup_libvirt.tests.conftest import backup, restore
disk = home / "vda.qcow2"
subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "16M"], check=True)
connection = libvirt.open("qemu:///session")
domain = connection.defineXML(f'''<domain type='qemu'><name>mine</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/>
<target dev='vda' bus='virtio'/></disk></devices></domain>''')
domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
(home / "images").mkdir()
options = LibvirtOptions(uri="qemu:///session", scratch_reserve=1 << 20, storage=home / "images")
hypervisor = Libvirt(options, HypervisorContext("mine", home / "journals"))
print({finding.level.value for finding in hypervisor.check()})
full = backup(hypervisor, "mine")
first = backup(hypervisor, "mine", full)
print(full.full_reasons, first.full_reasons, (home / ".local/state/vbackup").is_dir())
domain.destroy()
print(restore(hypervisor, first, RestoreRequest(name="copy"))[0])
"""


def test_the_libvirt_of_a_user(libvirtd: Libvirtd, home: Path) -> None:
    """qemu:///session, without any privilege; scratch files are in the user's own directory."""
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=+dac_read_search"]
    user += ["--ambient-caps=+dac_read_search"]  # so that it may read this tree, wherever that is
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    program = shutil.which("libvirtd") or "/usr/sbin/libvirtd"
    with subprocess.Popen([*user, program], env=environment, stderr=subprocess.DEVNULL) as daemon:
        try:
            root = str(Path(__file__).parents[3])
            done = subprocess.run(
                [*user, sys.executable, "-c", SESSION, home, root],
                env=environment,
                cwd=home,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            daemon.terminate()
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "{'ok'}",
        "{'vda': 'first backup of this disk'} {'vda': None} True",
        "the machine copy is defined",
    ]
