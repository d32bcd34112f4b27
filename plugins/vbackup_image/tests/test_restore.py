"""Disks put back as files and onto devices: all or nothing, and nothing is overwritten unasked."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vbackup.api import (
    AccessDenied,
    AlreadyExists,
    Busy,
    ConfigError,
    MachineDescription,
    NoSpace,
    NotFound,
    PluginError,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
    VBackupError,
)

MIB = 1 << 20
SIZE = 4 * MIB


@pytest.fixture
def disk(site):
    site.backup()
    return site.directory / "web.qcow2"


@pytest.mark.parametrize(
    ("given", "own", "suffix"),
    [
        (None, "qcow2", "qcow2"),
        (None, "raw", "raw"),
        (None, "vmdk", "qcow2"),
        ("raw", "qcow2", "raw"),
        ("qcow2", "raw", "qcow2"),
    ],
)
def test_a_new_machine_is_a_new_set_of_files(site, disk, helpers, given, own, suffix):
    said = site.restore(RestoreRequest(name="copy", format=given), {"disk0": own})
    path = site.directory / "storage" / f"copy-disk0.{suffix}"
    assert said == f"copy: {path}"
    assert helpers.content(path, suffix) == site.copies["disk0"]
    assert path.stat().st_blocks * 512 < SIZE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert site.leftovers() == []
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "given", "own", "found"),
    [
        ("x.qcow2", None, "raw", "qcow2"),
        ("x.img", None, "qcow2", "raw"),
        ("x.raw", "qcow2", "raw", "qcow2"),
        ("x", None, "raw", "raw"),
        ("x", None, "vdi", "qcow2"),
    ],
)
def test_the_format_is_what_is_asked_then_what_the_name_says_then_the_disks_own(
    site, disk, helpers, name, given, own, found
):
    path = site.directory / name
    site.restore(RestoreRequest(disks={"disk0": path}, format=given), {"disk0": own})
    assert helpers.content(path, found) == site.copies["disk0"]


def test_the_same_machine_is_replaced_only_when_asked(site, disk, helpers):
    helpers.qemu_io(disk, "write -P 200 0 4M")
    disk.chmod(0o640)
    os.chown(disk, 123, 456)
    changed = disk.read_bytes()
    with pytest.raises(AlreadyExists, match="web"):
        site.restore(RestoreRequest(), {"disk0": "qcow2"})
    assert disk.read_bytes() == changed
    said = site.restore(RestoreRequest(overwrite=True), {"disk0": "qcow2"}, {"nvram": b"x"})
    assert said == f"web: {disk}"
    assert helpers.content(disk) == site.copies["disk0"]
    status = disk.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 123, 456)
    assert site.backup().disks[0].full_reason == "the bitmap is gone"


def test_a_link_to_an_image_stays_a_link(site, disk, helpers):
    link = site.directory / "link.qcow2"
    link.symlink_to(disk)
    site.restore(RestoreRequest(disks={"disk0": link}, overwrite=True), {"disk0": "qcow2"})
    assert link.is_symlink()
    assert helpers.content(disk) == site.copies["disk0"]


def test_a_device_is_written_in_place(site, disk, loop):
    request = RestoreRequest(disks={"disk0": loop}, overwrite=True)
    site.restore(request, {"disk0": "qcow2"})
    assert loop.read_bytes() == site.copies["disk0"] + b"\xee" * (8 * MIB - SIZE)


def test_what_speaks_against_a_device_is_said_before_a_byte(site, disk, loop):
    with pytest.raises(AlreadyExists):
        site.restore(RestoreRequest(disks={"disk0": loop}), {"disk0": "raw"})
    with pytest.raises(Unsupported, match="raw bytes"):
        site.restore(RestoreRequest(disks={"disk0": loop}, overwrite=True, format="qcow2"), {"disk0": "raw"})
    site.copies["disk0"] = bytes(9 * MIB)
    with pytest.raises(NoSpace, match="9437184"):
        site.restore(RestoreRequest(disks={"disk0": loop}, overwrite=True), {"disk0": "raw"})
    assert loop.read_bytes() == b"\xee" * (8 * MIB)


def test_a_mounted_device_is_busy(site, disk, loop):
    subprocess.run(["mkfs.ext4", "-q", "-F", str(loop)], check=True)
    mount = site.directory / "mount"
    mount.mkdir()
    subprocess.run(["mount", str(loop), str(mount)], check=True)
    try:
        with pytest.raises(Busy, match="mounted"):
            site.restore(RestoreRequest(disks={"disk0": loop}, overwrite=True), {"disk0": "raw"})
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_an_image_that_a_machine_runs_on_is_never_replaced(site, disk, helpers, kind):
    path = helpers.make(site.directory / f"used.{kind}", kind)
    request = RestoreRequest(disks={"disk0": path}, overwrite=True)
    with subprocess.Popen(["qemu-io", "-f", kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdin.write(b"write -P 99 0 64k\n")
        writer.stdin.flush()
        while b"wrote" not in writer.stdout.readline():
            pass
        inode = path.stat().st_ino
        with pytest.raises(Busy):
            site.restore(request, {"disk0": kind})
        assert path.stat().st_ino == inode
    assert [p for p in site.directory.iterdir() if p.name.startswith(".")] == []


def test_no_machine_starts_on_an_image_that_is_being_replaced(site, disk):
    machine, disks = MachineDescription(name="web", id="web"), [RestoreDisk("disk0", SIZE, "qcow2")]
    with site.hypervisor().restore(machine, disks, {}, RestoreRequest(overwrite=True)):
        argv = ["qemu-io", "-f", "qcow2", "-c", "write 0 64k", str(disk)]
        assert b"lock" in subprocess.run(argv, capture_output=True, check=False).stderr


def test_leaving_without_finishing_leaves_everything_as_it_was(site, disk, helpers):
    before = disk.read_bytes()
    machine, disks = MachineDescription(name="web", id="web"), [RestoreDisk("disk0", SIZE, "qcow2")]
    for request in (RestoreRequest(overwrite=True), RestoreRequest(name="copy")):
        with site.hypervisor().restore(machine, disks, {}, request) as restoration:
            restoration.disks["disk0"].write(helpers.runs(bytes(SIZE)))
    assert disk.read_bytes() == before
    assert list((site.directory / "storage").iterdir()) == []
    assert site.leftovers() == []


def test_finishing_before_all_is_written_is_an_error(site, disk):
    machine, disks = MachineDescription(name="web", id="web"), [RestoreDisk("disk0", SIZE, "qcow2")]
    with (
        site.hypervisor().restore(machine, disks, {}, RestoreRequest(name="copy")) as restoration,
        pytest.raises(PluginError, match="disk0"),
    ):
        restoration.finish()
    assert list((site.directory / "storage").iterdir()) == []


CHILD = """
import sys
from pathlib import Path
from vbackup_image.plugin import ImageHypervisor
from vbackup.api import HypervisorContext, MachineDescription, RestoreDisk, RestoreRequest
hypervisor = ImageHypervisor(ImageHypervisor.options(), HypervisorContext("files", Path(sys.argv[1])))
request = RestoreRequest(disks={"disk0": Path(sys.argv[2])}, overwrite=True)
machine, disks = MachineDescription(name="web", id="web"), [RestoreDisk("disk0", 1 << 20, "raw")]
with hypervisor.restore(machine, disks, {}, request) as restoration:
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_restore_left_is_swept_and_the_image_is_as_it_was(site, disk, helpers):
    before = disk.read_bytes()
    argv = [sys.executable, "-c", CHILD, str(site.state), str(disk)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        assert site.hypervisor().sweep("0" * 32) == []
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(site.leftovers()) == 2
    assert len(site.hypervisor().sweep("0" * 32)) == 2
    assert site.leftovers() == []
    assert disk.read_bytes() == before
    site.restore(RestoreRequest(overwrite=True), {"disk0": "qcow2"})
    assert helpers.content(disk) == site.copies["disk0"]


def test_a_full_file_system_is_told_before_and_leaves_nothing(site, disk, helpers, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=True)
    try:
        site.copies["disk0"] = os.urandom(SIZE)
        machine, disks = MachineDescription(name="web", id="web"), [RestoreDisk("disk0", SIZE, "qcow2")]
        request = RestoreRequest(disks={"disk0": small / "x.qcow2"})
        with site.hypervisor().restore(machine, disks, {"tpm": b""}, request) as restoration:
            assert "can grow to 4194304" in restoration.notes[0]
            assert restoration.notes[1] == "tpm was left out: images have no place for it"
            with pytest.raises(NoSpace):
                restoration.disks["disk0"].write(helpers.runs(site.copies["disk0"]))
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_directory_that_cannot_be_written_is_access_denied(site, disk):
    mount = site.directory / "ro"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(mount)], check=True)
    try:
        with pytest.raises(AccessDenied):
            site.restore(RestoreRequest(disks={"disk0": mount / "x.raw"}), {"disk0": "raw"})
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_requests_that_cannot_be_met_are_refused(site, disk, helpers):
    def refused(kind: type[VBackupError], match: str, disks: dict[str, str] | None = None, **request: object) -> None:
        with pytest.raises(kind, match=match):
            site.restore(RestoreRequest(**request), disks or {"disk0": "qcow2"})

    refused(Unsupported, "started", name="copy", start=True)
    refused(Unsupported, "vmdk", name="copy", format="vmdk")
    refused(ConfigError, r"\.\./x", name="../x")
    refused(ConfigError, "hidden", name=".hidden")
    refused(Unsupported, "qcow2 and cannot be replaced by raw", overwrite=True, format="raw")
    site.restore(RestoreRequest(name="copy"), {"disk0": "qcow2"})
    refused(AlreadyExists, "copy-disk0", name="copy")
    site.copies["disk1"] = site.copies["disk0"]
    refused(NotFound, "disk1", {"disk1": "raw"}, overwrite=True)
    site.options.pop("storage")
    refused(ConfigError, "storage", name="other")


def test_paths_that_cannot_be_used_are_refused(site, disk):
    def refused(kind: type[VBackupError], match: str, *paths: Path) -> None:
        site.copies["disk1"] = site.copies["disk0"]
        disks = {f"disk{index}": path for index, path in enumerate(paths)}
        with pytest.raises(kind, match=match):
            site.restore(RestoreRequest(disks=disks, overwrite=True), dict.fromkeys(disks, "raw"))

    refused(NotFound, "nowhere", site.directory / "nowhere" / "x.raw")
    refused(Unsupported, "neither", site.directory)
    refused(Unsupported, "neither", Path("/dev/null"))
    refused(ConfigError, "one place", site.directory / "x.raw", site.directory / "." / "x.raw")
    with pytest.raises(NotFound, match="disk9"):
        site.restore(RestoreRequest(disks={"disk9": site.directory / "x"}), {"disk0": "raw"})
