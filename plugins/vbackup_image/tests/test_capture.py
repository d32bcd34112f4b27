"""Captures of images: what is copied equals the image, whatever happened to the bitmap."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.luks import make_luks
from vbackup.api import Busy, CaptureLost, NotFound, Quiesce, Range, Unsupported, VBackupError
from vbackup_qemu import image
from vbackup_qemu.host import LocalHost

MIB = 1 << 20
SIZE = 4 * MIB
BLOCK = 64 << 10
OWNER = "0123456789abcdef" * 2
PREFIX = "vbackup-01234567-"


@pytest.fixture
def disk(site):
    return site.directory / "web.qcow2"


def test_the_first_backup_reads_what_is_allocated(site, disk, helpers, bitmaps):
    capture = site.backup()
    assert capture.disks[0].full_reason == "first backup of this disk"
    assert site.copies["disk0"] == helpers.content(disk)
    assert site.read == 20 * BLOCK
    assert bitmaps(disk) == [site.marker["disks"]["disk0"]["bitmap"]]
    assert site.leftovers() == []


def test_the_next_backups_read_only_what_changed(site, disk, helpers, bitmaps):
    site.backup()
    source = random.Random(7)
    for round_ in range(5):
        commands = []
        for _ in range(3):
            command = source.choice([f"write -P {100 + round_}", "write -z", "write -z -u", "discard"])
            commands.append(f"{command} {source.randrange(60) * BLOCK} {2 * BLOCK}")
        helpers.qemu_io(disk, *commands)
        capture = site.backup()
        assert capture.disks[0].full_reason is None
        assert site.copies["disk0"] == helpers.content(disk)
        assert site.read <= 6 * BLOCK
        assert len(bitmaps(disk)) == 1


def test_nothing_is_read_when_nothing_changed(site):
    site.backup()
    site.backup()
    assert site.read == 0


def test_what_is_written_before_its_moment_is_captured(site, disk, helpers):
    def moment():
        helpers.qemu_io(disk, f"write -P 99 0 {BLOCK}")

    site.backup(moment=moment)
    assert site.copies["disk0"] == helpers.content(disk)
    site.backup()
    assert site.copies["disk0"] == helpers.content(disk)


def test_a_moment_that_does_not_come_leaves_nothing(site, disk, bitmaps):
    def moment():
        raise Busy("another machine")

    with pytest.raises(Busy, match="another machine"):
        site.backup(moment=moment)
    assert bitmaps(disk) == []
    assert site.leftovers() == []


def test_disks_of_all_formats_are_captured_together(site, helpers):
    kinds = ["qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc"]
    paths = [helpers.make(site.directory / f"many.{kind}", kind, seed) for seed, kind in enumerate(kinds)]
    site.options = {"machines": {"web": [str(path) for path in paths]}}
    capture = site.backup()
    site.backup()
    for index, (path, kind) in enumerate(zip(paths, kinds, strict=True)):
        assert site.copies[f"disk{index}"][:SIZE] == helpers.content(path, kind)[:SIZE]
    assert [d.format for d in capture.machine.disks] == kinds
    assert [d.full_reason for d in capture.disks][1:] == [f"{kind} images have no bitmaps" for kind in kinds[1:]]
    assert list(site.marker["disks"]) == ["disk0"]


def test_a_block_device_is_a_raw_disk(site, loop):
    site.options = {"machines": {"web": [str(loop)]}}
    capture = site.backup()
    assert site.copies["disk0"] == loop.read_bytes()
    assert capture.marker is None


def test_a_disk_that_is_left_out_is_described(site, helpers):
    site.options["machines"]["web"].append(str(helpers.make(site.directory / "data.raw", "raw")))
    capture = site.backup(exclude=frozenset({"disk1"}))
    assert [d.key for d in capture.disks] == ["disk0"]
    assert [d.key for d in capture.machine.disks] == ["disk0", "disk1"]
    assert capture.notes == []


def test_the_bitmap_of_a_disk_that_is_left_out_from_now_on_goes(site, helpers, bitmaps):
    second = helpers.make(site.directory / "data.qcow2")
    site.options["machines"]["web"].append(str(second))
    site.backup()
    kept = bitmaps(second)
    site.backup(exclude=frozenset({"disk1"}))
    assert bitmaps(second) == kept  # the restore point before needs it until this one is there
    site.backup(exclude=frozenset({"disk1"}))
    assert bitmaps(second) == []
    capture = site.backup()
    assert [disk.full_reason for disk in capture.disks] == [None, "first backup of this disk"]


def test_a_disk_that_is_left_out_need_not_be_there(site):
    site.options["machines"]["web"].append(str(site.directory / "gone.qcow2"))
    capture = site.backup(exclude=frozenset({"disk1"}))
    assert [(disk.key, disk.size) for disk in capture.machine.disks] == [("disk0", SIZE), ("disk1", 0)]


def test_a_device_that_is_mounted_is_busy(site, loop):
    """The kernel writes to it whenever it likes, and asks nobody's locks."""
    site.options = {"machines": {"web": [str(loop)]}}
    subprocess.run(["mkfs.ext4", "-q", str(loop)], check=True)
    hold = f"mount {loop} /mnt && echo mounted && exec cat"
    argv = ["unshare", "-m", "sh", "-c", hold]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "mounted\n"
        with pytest.raises(Busy, match="is mounted or part of another device"):
            site.backup()
        holder.communicate()
    site.backup()
    assert site.copies["disk0"] == loop.read_bytes()


def test_a_device_cannot_be_mounted_while_it_is_read(site, loop):
    subprocess.run(["mkfs.ext4", "-q", str(loop)], check=True)
    site.options = {"machines": {"web": [str(loop)]}}
    with site.hypervisor().capture("web", site.request()):
        done = subprocess.run(["unshare", "-m", "mount", str(loop), "/mnt"], check=False, capture_output=True)
        assert done.returncode != 0


# --- every way in which tracking ends, and that it heals


def break_gone(path):
    for name in image.info(LocalHost(), path, "qcow2").bitmaps:
        image.remove_bitmap(LocalHost(), path, name)


def break_disabled(path):
    for name in image.info(LocalHost(), path, "qcow2").bitmaps:
        subprocess.run(["qemu-img", "bitmap", "--disable", str(path), name], check=True)


def break_killed(path):
    argv = ["qemu-io", "-f", "qcow2", str(path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        writer.stdin.write(b"write -P 99 0 64k\n")
        writer.stdin.flush()
        while b"wrote" not in writer.stdout.readline():
            pass
        writer.kill()


def break_grown(path):
    subprocess.run(["qemu-img", "resize", "-q", "-f", "qcow2", str(path), "5M"], check=True)


def break_shrunk(path):
    break_gone(path)
    subprocess.run(["qemu-img", "resize", "-q", "--shrink", "-f", "qcow2", str(path), "3M"], check=True)


def break_amended(path):
    break_gone(path)
    subprocess.run(["qemu-img", "amend", "-f", "qcow2", "-o", "compat=0.10", str(path)], check=True)


@pytest.mark.parametrize(
    ("damage", "reason", "tracked"),
    [
        (break_gone, "the bitmap is gone", True),
        (break_disabled, "the bitmap is disabled", True),
        (break_killed, "the bitmap is inconsistent (QEMU was killed)", True),
        (break_grown, "resized from 4194304 to 5242880 bytes", True),
        (break_shrunk, "resized from 4194304 to 3145728 bytes", True),
        (break_amended, "qcow2 v2 (compat 0.10) cannot keep bitmaps", False),
    ],
)
def test_broken_tracking_is_told_and_heals_by_itself(site, disk, helpers, bitmaps, damage, reason, tracked):
    site.backup()
    damage(disk)
    site.copies["disk0"] = b"\xaa" * SIZE
    capture = site.backup()
    assert capture.disks[0].full_reason.startswith(reason)
    assert site.copies["disk0"] == helpers.content(disk)
    assert len(bitmaps(disk)) == (1 if tracked else 0)
    capture = site.backup()
    assert (capture.disks[0].full_reason is None) == tracked
    assert site.copies["disk0"] == helpers.content(disk)


def test_an_image_with_a_data_file_is_read_in_full(site, helpers):
    path = site.directory / "split.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={path}.data", str(path), "1M"]
    subprocess.run(argv, check=True)
    helpers.qemu_io(path, "write -P 5 0 64k")
    site.options["machines"]["web"] = [str(path)]
    capture = site.backup()
    assert capture.disks[0].full_reason == "images with an external data file are not tracked"
    assert site.copies["disk0"] == helpers.content(path)


def test_an_image_that_cannot_be_changed_is_still_captured(site, disk, helpers):
    """A read-only mount: no bitmap can be added, but the one that is there is used."""
    site.backup()
    helpers.qemu_io(disk, "write -P 77 0 64k")
    mount = site.directory / "mount"
    mount.mkdir()
    shutil.copy(disk, mount)
    subprocess.run(["mount", "--bind", str(mount), str(mount)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(mount)], check=True)
        site.options["machines"]["web"] = [str(mount / "web.qcow2")]
        capture = site.backup()
        assert capture.disks[0].full_reason is None
        assert capture.marker is None
        assert "disk0 will be read in full next time: no bitmap can be added" in capture.notes[0]
        assert site.copies["disk0"] == helpers.content(disk)
        again = site.backup()
        assert again.disks[0].full_reason.startswith("no bitmap can be added")
        assert site.copies["disk0"] == helpers.content(disk)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.parametrize("marker", [{"checkpoint": "x"}, {"disks": {"disk0": {"bitmap": "foreign", "size": SIZE}}}, {}])
def test_a_marker_that_is_not_ours_means_a_full_read(site, disk, helpers, marker):
    site.backup()
    capture = site.backup(since=marker)
    assert capture.disks[0].full_reason == "first backup of this disk"
    assert site.copies["disk0"] == helpers.content(disk)


def test_an_older_copy_of_the_image_brings_its_own_bitmaps(site, disk, helpers):
    """A file that is swapped for an older copy is read in full; swapped back, it is tracked right."""
    shutil.copy(disk, site.directory / "older")
    site.backup()
    helpers.qemu_io(disk, "write -P 55 0 64k")
    shutil.copy(disk, site.directory / "newer")
    shutil.copy(site.directory / "older", disk)
    capture = site.backup(commit=False)
    assert capture.disks[0].full_reason == "the bitmap is gone"
    assert site.copies["disk0"] == helpers.content(disk)


# --- bitmaps that are left behind


def test_a_capture_that_fails_takes_its_bitmap_along(site, disk, bitmaps):
    site.backup()
    before = bitmaps(disk)
    with pytest.raises(ZeroDivisionError), site.hypervisor().capture("web", site.request()):
        raise ZeroDivisionError
    assert bitmaps(disk) == before
    assert site.leftovers() == []
    assert site.backup().disks[0].full_reason is None


def test_a_disk_that_cannot_be_served_undoes_those_before(site, disk, bitmaps):
    (site.directory / "bad.qcow2").write_bytes(b"garbage")
    site.options["machines"]["web"].append(str(site.directory / "bad.qcow2"))
    with pytest.raises(VBackupError, match=r"bad\.qcow2"):
        site.backup()
    assert bitmaps(disk) == []


def test_a_marker_that_was_never_committed_is_removed_by_the_next_capture(site, disk, bitmaps):
    site.backup()
    site.backup(commit=False)
    assert len(bitmaps(disk)) == 2
    site.backup()
    assert bitmaps(disk) == [site.marker["disks"]["disk0"]["bitmap"]]


def test_a_commit_while_the_capture_is_open_tidies_up_as_it_closes(site, disk, bitmaps):
    site.backup()
    hypervisor = site.hypervisor()
    with hypervisor.capture("web", site.request()) as capture:
        hypervisor.commit("web", OWNER, capture.marker)
    assert bitmaps(disk) == [capture.marker["disks"]["disk0"]["bitmap"]]


def test_an_error_after_the_commit_does_not_take_the_bitmap_away(site, disk, bitmaps):
    hypervisor = site.hypervisor()
    committed = []

    def run() -> None:
        with hypervisor.capture("web", site.request()) as capture:
            hypervisor.commit("web", OWNER, capture.marker)
            committed.append(capture.marker["disks"]["disk0"]["bitmap"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert bitmaps(disk) == committed


def test_bitmaps_of_others_are_never_touched(site, disk, bitmaps):
    others = ["mine", "vbackup-ffffffff-00000000", "vbackup-0123456"]
    for name in others:
        image.add_bitmap(LocalHost(), disk, name)
    for _ in range(3):
        site.backup()
    assert set(others) < set(bitmaps(disk))
    assert len(bitmaps(disk)) == 4


def test_two_repositories_track_one_machine_apart(site, disk, helpers):
    site.backup()
    other = type(site)(site.directory, site.options)
    other_owner = "f" * 32
    hypervisor = other.hypervisor()
    with hypervisor.capture("web", other.request(owner=other_owner)) as capture:
        pass
    hypervisor.commit("web", other_owner, capture.marker)
    helpers.qemu_io(disk, "write -P 3 0 64k")
    assert site.backup().disks[0].full_reason is None
    with hypervisor.capture("web", other.request(owner=other_owner, since=capture.marker)) as capture:
        assert capture.disks[0].full_reason is None


CHILD = """
import sys
from pathlib import Path
from vbackup_image.plugin import ImageHypervisor
from vbackup.api import CaptureRequest, HypervisorContext
options = ImageHypervisor.options.model_validate({"machines": {"web": [sys.argv[1]]}})
hypervisor = ImageHypervisor(options, HypervisorContext("files", Path(sys.argv[2])))
with hypervisor.capture("web", CaptureRequest(owner=sys.argv[3])) as capture:
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_after_a_kill_in_the_middle_the_next_capture_works(site, disk, helpers, bitmaps):
    site.backup()
    argv = [sys.executable, "-c", CHILD, str(disk), str(site.state), OWNER]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        with pytest.raises(Busy, match="under way"):
            site.backup()
        assert site.hypervisor().sweep(OWNER) == []
        argv = ["pgrep", "-f", f"^qemu-nbd .*{disk}"]
        server = os.pidfd_open(int(subprocess.run(argv, capture_output=True, check=True).stdout))
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(site.leftovers()) == 1
    (swept,) = site.hypervisor().sweep(OWNER)
    assert swept.startswith("removed /tmp/vbackup-")
    assert site.leftovers() == []
    assert select.select([server], [], [], 60)[0]  # it ends by itself
    os.close(server)
    helpers.qemu_io(disk, "write -P 9 64k 64k")
    capture = site.backup()
    assert capture.disks[0].full_reason == "the bitmap is gone"  # the child had no marker: to it ours was an orphan
    assert site.copies["disk0"] == helpers.content(disk)
    assert len(bitmaps(disk)) == 1
    assert site.leftovers() == []


# --- what is refused, and what is noticed


def test_an_image_in_use_is_busy_whatever_its_format(site, helpers):
    for kind in ("qcow2", "raw"):
        path = helpers.make(site.directory / f"used.{kind}", kind)
        site.options["machines"]["web"] = [str(path)]
        argv = ["qemu-io", "-f", kind, str(path)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            writer.stdin.write(b"write -P 99 0 64k\n")
            writer.stdin.flush()
            while b"wrote" not in writer.stdout.readline():
                pass
            with pytest.raises(Busy) as caught:
                site.backup()
            assert "libvirt" in caught.value.hint


def test_a_write_past_qemu_is_noticed(site, helpers):
    path = helpers.make(site.directory / "raw.img", "raw")
    site.options["machines"]["web"] = [str(path)]
    with site.hypervisor().capture("web", site.request()) as capture:
        capture.check()
        with path.open("r+b") as file:
            file.write(b"torn")
        with pytest.raises(CaptureLost, match="written to"):
            capture.check()


def test_a_server_that_died_is_noticed_by_the_check(site, disk):
    with site.hypervisor().capture("web", site.request()) as capture:
        pids = subprocess.run(["pgrep", "-f", f"^qemu-nbd .*{disk}"], capture_output=True, text=True, check=True).stdout
        subprocess.run(["kill", "-9", *pids.split()], check=True)
        with pytest.raises(CaptureLost):
            list(capture.disks[0].read([Range(0, 512)]))
        with pytest.raises(CaptureLost):
            capture.check()


def test_what_is_not_there_is_not_found(site):
    with pytest.raises(NotFound, match="no machine db") as caught:
        site.backup("db")
    assert "web" in caught.value.hint
    site.options["machines"]["web"] = [str(site.directory / "missing.qcow2")]
    with pytest.raises(NotFound, match="missing"):
        site.backup()


def test_encrypted_images_and_freezing_are_unsupported(site):
    path = site.directory / "luks.qcow2"
    make_luks(path)
    with pytest.raises(Unsupported, match="freeze"):
        site.backup(quiesce=Quiesce.YES)
    site.options["machines"]["web"] = [str(path)]
    with pytest.raises(Unsupported, match="encrypted"):
        site.backup()


def test_machines_come_from_the_configuration_and_check_looks_at_programs(site):
    assert [(m.name, m.running) for m in site.hypervisor().machines()] == [("web", False)]
    assert {(f.what, f.level.value) for f in site.hypervisor().check()} == {
        ("qemu-img", "ok"),
        ("qemu-nbd", "ok"),
        ("libnbd", "ok"),
    }


def test_check_says_how_to_get_what_is_missing(site, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = site.hypervisor().check()[0]
    assert (finding.what, finding.level.value) == ("qemu-img", "error")
    assert "qemu-utils" in finding.hint


# --- what lies below an image


def rebase(below, top, helpers):
    other = helpers.make(below.with_name("other.qcow2"), seed=9)
    subprocess.run(["qemu-img", "rebase", "-u", "-f", "qcow2", "-b", other, "-F", "qcow2", top], check=True)


def renew(below, top, helpers):
    helpers.qemu_io(below, "write -P 77 0 1M")


@pytest.mark.parametrize("change", [rebase, renew])
def test_a_backing_file_that_changed_costs_a_full_read(site, helpers, change):
    below = helpers.make(site.directory / "below.qcow2", seed=5)
    top = site.directory / "top.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", top], check=True)
    site.options = {"machines": {"web": [str(top)]}}
    site.backup()
    helpers.qemu_io(top, f"write -P 99 0 {BLOCK}")
    assert site.backup().disks[0].full_reason is None
    change(below, top, helpers)
    assert site.backup().disks[0].full_reason == "its backing file changed"
    assert site.copies["disk0"] == helpers.content(top)
    assert site.backup().disks[0].full_reason is None
