"""Dying at every step: a process that kills itself at its n-th operation, for one n after another."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import libvirt
import pytest

from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.libvirtd import until
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, OWNER, backup
from .test_failures import SCRATCH
from .test_life import now_on_disk
from .test_stopped import write

STEP = 2

DYING = """
import os, signal, sys
from pathlib import Path
from vbackup.api import *
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.node import Machine
from vbackup_libvirt.options import LibvirtOptions
from vbackup_qemu.host import LocalHost
from vbackup_undo.journal import Journal

left = int(sys.argv[1])

def mortal(kind, name):
    real = getattr(kind, name)
    def method(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(kind, name, method)

mortal(Machine, "ask")
for name in ("run", "spawn", "make_private_dir", "remove_tree", "write_file"):
    mortal(LocalHost, name)
for name in ("write", "clear"):
    mortal(Journal, name)

state, name, images = Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
hypervisor = Libvirt(LibvirtOptions(scratch_reserve=1 << 20, storage=images), HypervisorContext("lab", state))
"""
CAPTURE = (
    DYING
    + """
import json
since = json.loads(sys.stdin.read())
with hypervisor.capture(name, CaptureRequest(sys.argv[5], since, Quiesce.NO)) as capture:
    for disk in capture.disks:
        list(disk.extents(full=False))
    capture.check()
    marker = capture.marker
hypervisor.commit(name, sys.argv[5], marker)
print("committed", json.dumps(marker))
"""
)
RESTORE = (
    DYING
    + """
machine = MachineDescription.model_validate_json(sys.stdin.read())
disks = [RestoreDisk("vda", 1 << 20, "qcow2")]
with hypervisor.restore(machine, disks, {}, RestoreRequest(name="copy")) as restoration:
    restoration.disks["vda"].write([Run(0, 1 << 20, b"x" * (1 << 20))])
    restoration.finish()
print("restored")
"""
)


def run(script: str, step: int, tmp_path: Path, name: str, text: str) -> bool:
    """Run a script that dies at a step; whether it did not get that far."""
    argv = [sys.executable, "-c", script, str(step), tmp_path / "state", name, tmp_path / "images", OWNER]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("running", [True, False])
def test_a_capture_that_dies_anywhere(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path, *, running: bool
) -> None:
    """A sweep and the next backup find their way; nothing of the dead is left."""
    guest = make_guest()
    if running:
        guest.start(paused=True)
    copy = backup(hypervisor, guest.name)
    step, finished = 0, False
    while not finished:
        finished = run(CAPTURE, step, tmp_path, guest.name, json.dumps(copy.marker))
        hypervisor.sweep(OWNER)
        assert not SCRATCH.exists() or list(SCRATCH.iterdir()) == []
        assert guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE if running else True
        write_command = f"write -P {step % 255 + 1} {step % 32}M 1M"
        if running:
            guest.qemu_io("vda", write_command)
        else:
            until(partial(can_write, guest.disks["vda"], write_command), "the dead's qemu-nbd to end")
        copy = backup(hypervisor, guest.name, copy)
        assert copy.disks["vda"] == now_on_disk(guest, "vda", tmp_path / "now"), step
        # Only at its very end does the dying run commit, and so remove the checkpoint that we still count on.
        assert copy.read["vda"] == MIB or copy.full_reasons["vda"] is not None, step
        assert len(guest.checkpoints) == 1
        step += STEP
    assert step > 20


def can_write(image: Path, command: str) -> bool:
    """Write to an image, if nobody has it open."""
    try:
        write(image, command)
    except subprocess.CalledProcessError:
        return False
    return True


def test_a_restore_that_dies_anywhere(
    hypervisor: Libvirt, images: Path, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """Either the machine is there with its disk, or nothing is."""
    guest = make_guest()
    copy = backup(hypervisor, guest.name)
    new = make_guest.adopt("copy")
    step, finished = 0, False
    while not finished:
        finished = run(RESTORE, step, tmp_path, guest.name, copy.description.model_dump_json())
        hypervisor.sweep(OWNER)
        names = [path.name for path in images.iterdir()]
        assert names == (["copy-vda.qcow2"] if new.exists else []), step
        if new.exists:
            new.undefine()
            (images / names[0]).unlink()
        step += STEP
    assert step > 10
