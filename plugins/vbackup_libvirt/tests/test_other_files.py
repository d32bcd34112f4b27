"""Images whose bitmaps say nothing of what became of them: they are read in full, with the reason."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from vbackup.api import CaptureLost, CaptureRequest
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup_libvirt.hypervisor import Libvirt

from .conftest import MIB, OWNER, Copy, backup, copy_all
from .test_running import assert_exact
from .test_stopped import write


def make(path: Path, *commands: str, options: tuple[str, ...] = ()) -> Path:
    """Make a qcow2 image and write to it."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path, "64M"], check=True)
    write(path, *commands)
    return path


def overlay(path: Path, backing: Path) -> Path:
    """Make an image on top of another one."""
    return make(path, options=("-b", str(backing), "-F", "qcow2"))


def changed_and_backed_up(hypervisor: Libvirt, guest: Guest, command: str, base: Copy | None, *, running: bool) -> Copy:
    """Write to vda, in QEMU or beside it, back up, and see that the copy is exact; the machine is off after."""
    if running:
        guest.start(paused=True)
        guest.qemu_io("vda", command)
    else:
        write(guest.disks["vda"], command)
    copy = backup(hypervisor, guest.name, base)
    assert_exact(guest, copy.disks)
    return copy


def rebase(golden: Path, top: Path) -> None:
    """Put another image below."""
    other = make(golden.with_name("other.qcow2"), "write -P 0x22 0 32M")
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", other, "-F", "qcow2", top], check=True)


def renew(golden: Path, top: Path) -> None:
    """Write to the one that is below the one below."""
    del top
    write(golden, "write -P 0x22 0 32M")


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("change", [rebase, renew])
def test_a_backing_file_that_changed(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path, change: Callable[[Path, Path], None], running: bool
) -> None:
    """Anywhere in the chain; while nothing changes there, only what changed on top is read."""
    golden = make(tmp_path / "golden.qcow2", "write -P 0x11 0 32M")
    top = overlay(tmp_path / "top.qcow2", overlay(tmp_path / "middle.qcow2", golden))
    guest = make_guest(disks=(Disk("vda", path=top),))
    copy = changed_and_backed_up(hypervisor, guest, "write -P 0x33 40M 6M", None, running=running)
    copy = changed_and_backed_up(hypervisor, guest, "write -P 0x44 41M 5M", copy, running=running)
    assert (copy.full_reasons["vda"], copy.read["vda"]) == (None, 5 * MIB)
    change(golden, top)
    copy = changed_and_backed_up(hypervisor, guest, "write -P 0x55 50M 1M", copy, running=running)
    assert copy.full_reasons["vda"] == "its backing file changed"
    copy = changed_and_backed_up(hypervisor, guest, "write -P 0x66 50M 1M", copy, running=running)
    assert copy.full_reasons["vda"] is None


def test_a_backing_file_that_is_not_on_the_host(
    hypervisor: Libvirt, make_guest: GuestFactory, libvirtd: Libvirtd, tmp_path: Path
) -> None:
    """Nobody can tell whether it changed: no bitmap is made."""
    socket = tmp_path / "s"
    libvirtd.spawn(["nbdkit", "-f", "-U", str(socket), "memory", "64M"])
    until(socket.is_socket, "nbdkit to listen")
    top = make(tmp_path / "top.qcow2", options=("-b", f"nbd+unix:///?socket={socket}", "-F", "raw"))
    guest = make_guest(disks=(Disk("vda", path=top),))
    copy = backup(hypervisor, guest.name)
    assert "is not on this machine" in str(copy.full_reasons["vda"])
    assert copy.marker is None


@pytest.mark.parametrize("running", [False, True])
def test_an_external_data_file(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path, running: bool) -> None:
    """It is there to be written to directly, so the disk is never tracked."""
    data = tmp_path / "data.raw"
    top = make(tmp_path / "top.qcow2", options=("-o", f"data_file={data},data_file_raw=on"))
    guest = make_guest(disks=(Disk("vda", path=top),))
    copy = changed_and_backed_up(hypervisor, guest, "write -P 0x33 40M 6M", None, running=running)
    write(data, "write -P 0x66 8M 4M")
    copy = changed_and_backed_up(hypervisor, guest, "write -P 0x44 41M 5M", copy, running=running)
    assert "external data file" in str(copy.full_reasons["vda"])


def test_images_of_one_machine_that_changed_places(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Their bitmaps have one name, and each says what changed of the other one."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    one, other = guest.disks["vda"], guest.disks["vdb"]
    write(one, "write -P 0xaa 8M 64k")
    write(other, "write -P 0xbb 8M 64k")
    copy = backup(hypervisor, guest.name)
    spare = one.with_name("spare")
    one.rename(spare)
    other.rename(one)
    spare.rename(other)
    copy = backup(hypervisor, guest.name, copy)
    assert set(copy.full_reasons.values()) == {"its image was replaced by another file"}
    assert_exact(guest, copy.disks)


def test_a_raw_image_that_is_written_to_while_the_machine_is_off(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """By a loop mount, for one, which knows nothing of QEMU's locks."""
    guest = make_guest(disks=(Disk("vda", format="raw"),))
    with hypervisor.capture(guest.name, CaptureRequest(OWNER)) as capture:
        with guest.disks["vda"].open("r+b") as file:
            file.write(b"torn")
        with pytest.raises(CaptureLost, match=r"vda\.raw was written to while it was read"):
            capture.check()


def test_a_resize_leaves_no_bitmaps_behind(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """Neither on the disk that was resized nor on the one beside it, though the machine runs all the time."""
    guest = make_guest(disks=(Disk("vda"), Disk("vdb")))
    guest.start(paused=True)
    copy = backup(hypervisor, guest.name)
    for step in range(3):
        guest.domain.blockResize("vda", (65 + step) * MIB, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
        copy = backup(hypervisor, guest.name, copy)
        assert copy.full_reasons["vdb"] is None
    assert {key: len(names) for key, names in guest.bitmaps.items()} == {"vda": 1, "vdb": 1}


def test_cdata_in_the_metadata(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """libvirt keeps such sections as they are; they are no document type."""
    guest = make_guest(metadata="<metadata><x:note xmlns:x='urn:x'><![CDATA[a <b> & c]]></x:note></metadata>")
    native = backup(hypervisor, guest.name).description.native
    assert native is not None
    assert "a <b> & c" in native.text


def test_the_live_disk_of_a_key_is_the_one_that_is_described(
    hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path
) -> None:
    """With a note on the one that has the key from the next start on."""
    now, later = make(tmp_path / "now.qcow2", "write -P 1 0 1M"), make(tmp_path / "later.qcow2", "write -P 2 0 1M")
    guest = make_guest(disks=(Disk("vda"), Disk("vdb", path=now)))
    guest.start(paused=True)
    guest.domain.updateDeviceFlags(
        f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{later}'/>"
        "<target dev='vdb' bus='virtio'/></disk>",
        libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )
    with hypervisor.capture(guest.name, CaptureRequest(OWNER)) as capture:
        copy = copy_all(capture)
    assert {disk.key: disk.source for disk in copy.description.disks}["vdb"] == str(now)
    assert f"disk vdb is {now} now, which is captured, and {later} at the next start" in copy.notes
