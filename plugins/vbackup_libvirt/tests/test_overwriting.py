"""Restores over what is there: nothing of others is lost, and a machine is the old or the restored one, no mixture."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import pytest

from vbackup.api import AlreadyExists, Busy, Capture, CaptureRequest, RestoreDisk, RestoreRequest, VBackupError
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, OWNER, Copy, backup, restore, runs
from .test_other_files import make
from .test_running import assert_exact
from .test_stopped import write

OVER = RestoreRequest(overwrite=True)


def holds(path: Path, value: int) -> bool:
    """Whether an image begins with 1 MiB of that byte."""
    argv = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {value} 0 1M", str(path)]
    return "failed" not in subprocess.run(argv, check=False, capture_output=True, text=True).stdout


def fill(guest: Guest, value: int) -> None:
    """Write that byte to the first MiB of all disks of a machine that is off."""
    for path in guest.disks.values():
        write(path, f"write -P {value} 0 1M")


def changed_text(copy: Copy, old: str, new: str) -> None:
    """Put another document into a copy."""
    native = copy.description.native
    assert native is not None
    assert old in native.text
    native = native.model_copy(update={"text": native.text.replace(old, new, 1)})
    copy.description = copy.description.model_copy(update={"native": native})


def disk_xml(path: Path, key: str) -> str:
    """Return a ``<disk>``."""
    return (
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>"
        f"<target dev='{key}' bus='virtio'/></disk>"
    )


def test_a_cdrom_that_has_the_key_of_a_disk_now(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """Its ISO is not written to."""
    guest = make_guest(disks=(Disk("vda"), Disk("sda", bus="sata")))
    copy = backup(hypervisor, guest.name)
    iso = tmp_path / "debian.iso"
    iso.write_bytes(b"ISO" * MIB)
    domain = guest.xml()
    devices = domain.find("devices")
    assert devices is not None
    devices.remove(next(d for d in devices.findall("disk") if d.find("target[@dev='sda']") is not None))
    devices.append(
        ET.fromstring(
            f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='{iso}'/>"
            "<target dev='sda' bus='sata'/><readonly/></disk>"
        )
    )
    with guest.libvirtd.connection() as connection:
        connection.defineXML(ET.tostring(domain, encoding="unicode"))
    restore(hypervisor, copy, OVER)
    assert iso.read_bytes() == b"ISO" * MIB
    assert_exact(guest, copy.disks)


@pytest.mark.parametrize("linked", [False, True])
def test_the_disk_of_another_machine(hypervisor: Libvirt, make_guest: GuestFactory, images: Path, linked: bool) -> None:
    """It is refused, by whatever name that one knows it, be it off as it may."""
    path = make(images / "system.qcow2", "write -P 0x11 0 1M")
    gone = make_guest(disks=(Disk("vda", path=path),))
    copy = backup(hypervisor, gone.name)
    gone.undefine()
    path.unlink()
    make(path, "write -P 0x22 0 1M")
    link = images / "link.qcow2"
    link.symlink_to(path)
    other = make_guest(disks=(Disk("vda", path=link if linked else path),))
    for request in (OVER, RestoreRequest(disks={"vda": path}, overwrite=True)):
        with pytest.raises(AlreadyExists, match=f"belongs to the machine {other.name}"):
            restore(hypervisor, copy, request)
    assert holds(path, 0x22)


def test_a_definition_that_libvirt_refuses(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """It is seen before a disk is replaced."""
    guest = make_guest()
    copy = backup(hypervisor, guest.name)
    changed_text(copy, "/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm")
    fill(guest, 0x22)
    inode = guest.disks["vda"].stat().st_ino
    with pytest.raises(VBackupError):
        restore(hypervisor, copy, OVER)
    assert guest.disks["vda"].stat().st_ino == inode
    assert holds(guest.disks["vda"], 0x22)


def test_a_restore_that_fails_between_two_disks(hypervisor: Libvirt, make_guest: GuestFactory, images: Path) -> None:
    """The old disks and the old definition come back, and the second disk's file of somebody else stays."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    copy = backup(hypervisor, guest.name)
    guest.domain.detachDeviceFlags(disk_xml(guest.disks["vdb"], "vdb"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    fill(guest, 0x22)
    before = ET.tostring(guest.xml())
    disks = [RestoreDisk(key, len(data), "qcow2") for key, data in copy.disks.items()]
    with hypervisor.restore(copy.description, disks, {}, OVER) as restoration:
        for key, sink in restoration.disks.items():
            sink.write(runs(copy.disks[key]))
        theirs = images / f"{guest.name}-vdb.qcow2"
        theirs.write_bytes(b"precious")
        with pytest.raises(AlreadyExists, match="meanwhile"):
            restoration.finish()
    assert ET.tostring(guest.xml()) == before
    assert holds(guest.disks["vda"], 0x22)
    assert theirs.read_bytes() == b"precious"
    assert [
        path.name for path in (*images.iterdir(), *guest.disks["vda"].parent.iterdir()) if path.name[0] == "."
    ] == []


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.options import LibvirtOptions
from vbackup_qemu.host import LocalHost
from vbackup.api import HypervisorContext
from plugins.vbackup_libvirt.tests.conftest import restore
state, images, file = sys.argv[1:]
copy, request, moves = pickle.loads(Path(file).read_bytes())
run, done = LocalHost.run, 0
def dying(self, argv, **options):
    global done
    if argv[0] == "mv":
        if done == moves:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
    return run(self, argv, **options)
LocalHost.run = dying
hypervisor = Libvirt(LibvirtOptions(scratch_reserve=1 << 20, storage=images), HypervisorContext("lab", Path(state)))
restore(hypervisor, copy, request)
"""


def killed_restore(tmp_path: Path, copy: Copy, request: RestoreRequest, moves: int) -> None:
    """Restore in a process that is killed after so many renames."""
    file = tmp_path / "pickle"
    file.write_bytes(pickle.dumps((copy, request, moves)))
    argv = [sys.executable, "-c", KILLED, str(tmp_path / "state"), str(tmp_path / "images"), str(file)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_killed_between_two_disks(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path, moves: int) -> None:
    """A sweep puts all of the old machine back, but not while it runs on the mixture."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    fill(guest, 0x11)
    copy = backup(hypervisor, guest.name)
    fill(guest, 0x22)
    before, sources = ET.tostring(guest.xml()), guest.disks
    killed_restore(tmp_path, copy, OVER, moves)
    if moves == 2:
        guest.start(paused=True)
        assert "switch it off" in hypervisor.sweep(OWNER)[0]
        guest.destroy()
    hypervisor.sweep(OWNER)
    assert ET.tostring(guest.xml()) == before
    assert all(holds(path, 0x22) for path in sources.values())
    assert [path.name for path in sources["vda"].parent.iterdir() if path.name[0] == "."] == []


def test_a_sweep_leaves_what_others_made(
    hypervisor: Libvirt, make_guest: GuestFactory, images: Path, tmp_path: Path
) -> None:
    """In the place where a killed restore was about to put its disk."""
    copy = backup(hypervisor, make_guest().name)
    killed_restore(tmp_path, copy, RestoreRequest(name="twin"), 0)
    path = images / "twin-vda.qcow2"
    make(path, "write -P 0x33 0 1M")
    assert hypervisor.sweep(OWNER)
    assert list(images.iterdir()) == [path]
    assert holds(path, 0x33)


def test_a_sweep_removes_the_disk_of_a_new_machine_that_was_never_defined(
    hypervisor: Libvirt, make_guest: GuestFactory, images: Path, tmp_path: Path
) -> None:
    """Here the first disk was in its place, the second one not yet."""
    copy = backup(hypervisor, make_guest(disks=(Disk("vda"), Disk("vdb"))).name)
    killed_restore(tmp_path, copy, RestoreRequest(name="twin"), 1)
    assert (images / "twin-vda.qcow2").exists()
    hypervisor.sweep(OWNER)
    assert list(images.iterdir()) == []


def test_a_capture_during_a_restore_of_the_machine_is_busy(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """It would be one of old and new disks."""
    guest = make_guest()
    copy = backup(hypervisor, guest.name)
    disks = [RestoreDisk("vda", 64 * MIB, "qcow2")]
    with hypervisor.restore(copy.description, disks, {}, OVER), pytest.raises(Busy):
        capture(hypervisor, guest.name)
    capture(hypervisor, guest.name)


def capture(hypervisor: Libvirt, name: str) -> Capture:
    """Open and close a capture."""
    with hypervisor.capture(name, CaptureRequest(OWNER)) as opened:
        return opened


def test_a_symbolic_link_stays(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """The file that it leads to is replaced, where it is."""
    (tmp_path / "fast").mkdir()
    real, link = make(tmp_path / "fast/vm.qcow2", "write -P 0x11 0 1M"), tmp_path / "vm.qcow2"
    link.symlink_to(real)
    guest = make_guest(disks=(Disk("vda", path=link),))
    copy = backup(hypervisor, guest.name)
    write(real, "write -P 0x22 0 1M")
    restore(hypervisor, copy, OVER)
    assert link.is_symlink()
    assert guest.disks["vda"] == link
    assert holds(real, 0x11)


def test_another_disk_that_has_the_key_now_is_left(
    hypervisor: Libvirt, make_guest: GuestFactory, images: Path, tmp_path: Path
) -> None:
    """The restored one goes to the storage directory, with a note; and over that the next time."""
    now, later = (
        make(tmp_path / "now.qcow2", "write -P 0x11 0 1M"),
        make(tmp_path / "later.qcow2", "write -P 0x22 0 1M"),
    )
    guest = make_guest(disks=(Disk("vda"), Disk("vdb", path=now)))
    guest.start(paused=True)
    guest.domain.updateDeviceFlags(disk_xml(later, "vdb"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    copy = backup(hypervisor, guest.name)
    guest.destroy()
    place = images / f"{guest.name}-vdb.qcow2"
    _, notes = restore(hypervisor, copy, OVER)
    assert f"disk vdb, which was at {now}; {later}, which is another one, is left, is at {place}" in notes
    assert holds(later, 0x22)
    assert guest.disks["vdb"] == place
    restore(hypervisor, copy, OVER)
    assert_exact(guest, copy.disks)


def test_hot_plugged_and_to_be_plugged(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """Both disks have the same PCI slot, one now, one from the next start on; the point can be restored."""
    guest = make_guest()
    guest.start(paused=True)
    for key, flag in (("vdb", libvirt.VIR_DOMAIN_AFFECT_LIVE), ("vdc", libvirt.VIR_DOMAIN_AFFECT_CONFIG)):
        guest.domain.attachDeviceFlags(disk_xml(make(tmp_path / f"{key}.qcow2", "write -P 1 0 1M"), key), flag)
    copy = backup(hypervisor, guest.name)
    guest.destroy()
    restore(hypervisor, copy, RestoreRequest(name="twin"))
    twin = make_guest.adopt("twin")
    assert {"vda", "vdb"} <= set(twin.disks)
    assert_exact(twin, copy.disks)


def test_an_encrypted_disk_is_restored_in_clear(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """And that is told, also when only the disk is restored."""
    copy = backup(hypervisor, make_guest().name)
    secret = "<secret type='passphrase' uuid='aaaaaaaa-0000-4000-8000-000000000001'/>"
    changed_text(copy, "<target dev='vda'", f"<encryption format='luks'>{secret}</encryption><target dev='vda'")
    for request in (RestoreRequest(name="clear"), RestoreRequest(disks={"vda": tmp_path / "vda.raw"})):
        _, notes = restore(hypervisor, copy, request)
        assert "disk vda was encrypted, and is restored in clear: its key is not in the restore point" in notes
    make_guest.adopt("clear")


def test_a_device_that_is_mounted_out_of_sight(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """In a container, for one: the kernel knows."""
    file = tmp_path / "loop.img"
    file.write_bytes(bytes(64 * MIB))
    copy = backup(hypervisor, make_guest().name)
    device = subprocess.check_output(["losetup", "--show", "-f", file], text=True).strip()
    try:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        hold = f"mount {device} /mnt && echo mounted && exec cat"
        with subprocess.Popen(
            ["unshare", "-m", "sh", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mounted\n"
            with pytest.raises(Busy, match="is mounted or part of another device"):
                restore(hypervisor, copy, RestoreRequest(disks={"vda": Path(device)}, overwrite=True))
            holder.communicate()
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
