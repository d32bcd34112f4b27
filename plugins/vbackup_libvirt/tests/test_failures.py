"""What can go wrong during a capture does, for real; and what is left is undone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from vbackup.api import Busy, CaptureLost, CaptureRequest, NoSpace, Quiesce, Range, Unavailable
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup.testing.lab.libvirtd import Libvirtd, until
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.job import BackupJob

from .conftest import MIB, OTHER_OWNER, OWNER, Copy, Hypervisors, backup, copy_all, guards, kill_guards
from .test_running import assert_exact

SCRATCH = Path("/var/lib/libvirt/qemu/vbackup")
NOW = CaptureRequest(OWNER, quiesce=Quiesce.NO)

HOLD = f"""
import sys
import tempfile
from pathlib import Path
from vbackup.api import CaptureRequest, HypervisorContext, Quiesce
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.options import LibvirtOptions
options = LibvirtOptions(scratch_reserve={MIB})
hypervisor = Libvirt(options, HypervisorContext("lab", Path(sys.argv[2])))
with hypervisor.capture(sys.argv[1], CaptureRequest({OWNER!r}, quiesce=Quiesce(sys.argv[3]))) as capture:
    print("captured", capture.quiesced, flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process of vbackup that holds a capture."""

    def __init__(self, guest: Guest, state: Path, quiesce: Quiesce = Quiesce.NO) -> None:
        argv = [sys.executable, "-c", HOLD, guest.name, str(state), quiesce.value]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline()
        assert self.said.startswith("captured")

    def kill(self, *, with_guard: bool = True) -> None:
        """SIGKILL it, with the process that would end its job or without."""
        if with_guard:
            self.process.send_signal(signal.SIGSTOP)  # else it could reap, and its guard's id be somebody else's
            kill_guards(self.process.pid)
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def guest(make_guest: GuestFactory) -> Guest:
    """A machine that is paused, with data on its disk."""
    guest = make_guest()
    guest.start(paused=True)
    guest.qemu_io("vda", "write -P 0xaa 0 32M")
    return guest


def copy_after(
    hypervisor: Libvirt, guest: Guest, request: CaptureRequest, event: Callable[[], object], base: Copy | None = None
) -> Copy:
    """Capture, have something happen, and copy."""
    with hypervisor.capture(guest.name, request) as capture:
        event()
        return copy_all(capture, base)


def test_a_second_capture_is_busy(hypervisor: Libvirt, guest: Guest) -> None:
    """In this process, and the first one goes on."""
    with hypervisor.capture(guest.name, NOW) as capture:
        with pytest.raises(Busy) as caught, hypervisor.capture(guest.name, NOW):
            pass
        assert caught.value.transient
        copy_all(capture)


def test_a_capture_of_another_process_is_busy(hypervisor: Libvirt, guest: Guest, tmp_path: Path) -> None:
    """With another state directory as well: then the process is named."""
    for state in (tmp_path / "state", tmp_path / "other"):
        holder = Holder(guest, state)
        with pytest.raises(Busy) as caught, hypervisor.capture(guest.name, NOW):
            pass
        if state.name == "other":
            assert f"is being backed up by process {holder.process.pid} on " in caught.value.message
        assert hypervisor.sweep(OWNER) == []
        assert guest.domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE
        holder.process.communicate("")
        assert holder.process.returncode == 0


def test_a_backup_by_another_program_is_busy(hypervisor: Libvirt, guest: Guest, tmp_path: Path) -> None:
    """It is left alone."""
    xml = f"""<domainbackup mode='pull'><server transport='unix' socket='{tmp_path}/nbd'/>
      <disks><disk name='vda' type='file'><scratch file='{tmp_path}/scratch'/></disk></disks></domainbackup>"""
    guest.domain.backupBegin(xml, None)
    with pytest.raises(Busy, match="by another program"), hypervisor.capture(guest.name, NOW):
        pass
    assert guest.domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE
    guest.domain.abortJob()


def test_a_block_job_is_busy(hypervisor: Libvirt, guest: Guest, tmp_path: Path) -> None:
    """Such as a copy of a disk to another place."""
    target = f"<disk type='file'><source file='{tmp_path}/copy'/><driver type='qcow2'/></disk>"
    flags = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
    guest.domain.blockCopy("vda", target, {}, flags)
    with pytest.raises(Busy, match="a block job runs on disk vda"), hypervisor.capture(guest.name, NOW):
        pass
    guest.domain.blockJobAbort("vda", 0)


@pytest.mark.parametrize("way", ["sweep", "capture"])
def test_killed_in_mid_capture(hypervisor: Libvirt, guest: Guest, tmp_path: Path, way: str) -> None:
    """SIGKILL leaves a job, scratch files and a checkpoint: a sweep or the next capture ends them, no other owner's."""
    full = backup(hypervisor, guest.name)
    holder = Holder(guest, tmp_path / "state")
    assert len(guest.checkpoints) == 2
    holder.kill()
    assert hypervisor.sweep(OTHER_OWNER) == []
    if way == "sweep":
        assert hypervisor.sweep(OWNER) == [f"undid what a dead capture of {guest.name} had left"]
        assert guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE
        assert list(SCRATCH.iterdir()) == []
        assert hypervisor.sweep(OWNER) == []
    guest.qemu_io("vda", "write -P 0x33 1M 1M")
    first = backup(hypervisor, guest.name, full)
    assert first.full_reasons == {"vda": None}
    assert list(SCRATCH.iterdir()) == []
    assert guest.bitmaps["vda"] == guest.checkpoints
    assert len(guest.checkpoints) == 1
    assert_exact(guest, first.disks)


@pytest.mark.parametrize("soon", [True, False])
def test_killed_and_nobody_sweeps(hypervisor: Libvirt, guest: Guest, tmp_path: Path, *, soon: bool) -> None:
    """The job ends by itself, before it fills the scratch space and the guest is given I/O errors."""
    holder = Holder(guest, tmp_path / "state")
    if not soon:
        (guard,) = guards(holder.process.pid)
        until(lambda: "pydantic_core" in Path(f"/proc/{guard}/maps").read_text(), "it to import what it takes to act")
    holder.kill(with_guard=False)
    until(lambda: guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, "the job to be ended")
    until(lambda: list(SCRATCH.iterdir()) == [], "the scratch files to be removed")
    assert hypervisor.sweep(OWNER) == [f"undid what a dead capture of {guest.name} had left"]


def test_killed_with_a_lost_journal(hypervisor: Libvirt, guest: Guest, tmp_path: Path) -> None:
    """The job itself tells that its maker is dead."""
    holder = Holder(guest, tmp_path / "other")
    holder.kill()
    shutil.rmtree(tmp_path / "other")
    copy = backup(hypervisor, guest.name)
    assert any("ended the backup job that process" in note for note in copy.notes)
    assert len(guest.checkpoints) == 1
    assert list(SCRATCH.iterdir()) == []


def test_killed_by_another_configuration(make_hypervisor: Hypervisors, guest: Guest, tmp_path: Path) -> None:
    """A dead run's job is known by its private directory, wherever that is."""
    Holder(guest, tmp_path / "other").kill()
    with tempfile.TemporaryDirectory(prefix="vb-") as scratch:
        hypervisor = make_hypervisor(scratch=scratch)
        assert backup(hypervisor, guest.name).disks["vda"][0] == 0xAA
    assert list(SCRATCH.iterdir()) == []


def test_killed_while_the_machine_is_off(hypervisor: Libvirt, make_guest: GuestFactory, tmp_path: Path) -> None:
    """The bitmap and the checkpoint of the dead go; the server of the image is gone."""
    guest = make_guest()
    full = backup(hypervisor, guest.name)
    holder = Holder(guest, tmp_path / "state")
    holder.kill()
    assert hypervisor.sweep(OWNER) == [f"undid what a dead capture of {guest.name} had left"]

    def backed_up() -> bool:
        try:
            assert backup(hypervisor, guest.name, full).full_reasons == {"vda": None}
        except Busy:  # qemu-nbd ends when it notices
            return False
        return True

    until(backed_up, "the image to be free")
    assert len(guest.checkpoints) == 1


@pytest.mark.parametrize("how", ["power-off", "SIGKILL"])
def test_the_machine_ends_in_mid_capture(hypervisor: Libvirt, guest: Guest, how: str) -> None:
    """Reading ends with a transient error that says so, and nothing is kept; the last good marker still counts."""
    full = backup(hypervisor, guest.name)
    request = CaptureRequest(OWNER, full.marker, Quiesce.NO)
    end = guest.destroy if how == "power-off" else guest.kill_qemu
    with pytest.raises(CaptureLost, match="switched off") as caught:
        copy_after(hypervisor, guest, request, end, full)
    assert caught.value.transient
    assert list(SCRATCH.iterdir()) == []
    guest.start(paused=True)
    again = backup(hypervisor, guest.name, full)
    assert (again.full_reasons["vda"] is None) == (how == "power-off")
    assert guest.bitmaps["vda"] == guest.checkpoints
    assert len(guest.checkpoints) == 1
    assert_exact(guest, again.disks)


def test_check_notices_an_end_after_the_last_read(hypervisor: Libvirt, guest: Guest) -> None:
    """Even if the machine runs again by then."""
    with hypervisor.capture(guest.name, NOW) as capture:
        (disk,) = capture.disks
        assert len(next(iter(disk.read([Range(0, MIB)]))).data) == MIB
        guest.destroy()
        guest.start(paused=True)
        with pytest.raises(CaptureLost):
            capture.check()


def test_a_job_ended_by_others_is_noticed(hypervisor: Libvirt, guest: Guest) -> None:
    """libvirt calls a pull-mode job that was aborted completed: that is never taken for a success."""
    with pytest.raises(CaptureLost, match="ended early"):
        copy_after(hypervisor, guest, NOW, guest.domain.abortJob)


def test_libvirtd_restarts_in_mid_capture(hypervisor: Libvirt, guest: Guest, libvirtd: Libvirtd) -> None:
    """The job lives in QEMU: reading goes on, and the job is ended over a new connection."""
    full = backup(hypervisor, guest.name)
    guest.qemu_io("vda", "write -P 0x44 2M 1M")
    for how in (signal.SIGTERM, signal.SIGKILL):
        with hypervisor.capture(guest.name, CaptureRequest(OWNER, full.marker, Quiesce.NO)) as capture:
            libvirtd.restart(how)
            full = copy_all(capture, full)
        assert full.marker is not None
        hypervisor.commit(guest.name, OWNER, full.marker)
        assert guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE
        assert full.full_reasons == {"vda": None}
    assert len(guest.checkpoints) == 1
    assert_exact(guest, full.disks)


def test_libvirtd_is_gone_at_the_end(
    hypervisor: Libvirt, guest: Guest, libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete copy is good; the job is left to a sweep, and its marker still counts."""
    monkeypatch.setattr("vbackup_libvirt.connection.PATIENCE", 0.5)
    with hypervisor.capture(guest.name, NOW) as capture:
        full = copy_all(capture)
        libvirtd.stop()
    libvirtd.start()
    assert hypervisor.sweep(OWNER) == [f"undid what a dead capture of {guest.name} had left"]
    assert guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE
    assert list(SCRATCH.iterdir()) == []
    guest.qemu_io("vda", "write -P 0x33 1M 1M")
    assert backup(hypervisor, guest.name, full).read == {"vda": MIB}


def test_libvirtd_is_gone_for_good(
    hypervisor: Libvirt, guest: Guest, libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The capture cannot be vouched for."""
    monkeypatch.setattr("vbackup_libvirt.connection.PATIENCE", 0.5)
    with pytest.raises(Unavailable):
        copy_after(hypervisor, guest, NOW, libvirtd.stop)
    libvirtd.start()
    assert backup(hypervisor, guest.name).full_reasons == {"vda": "first backup of this disk"}
    assert len(guest.checkpoints) == 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m,mode=755", "vbackup", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_too_little_scratch_space_is_refused(make_hypervisor: Hypervisors, guest: Guest, small: Path) -> None:
    """Before anything is begun, with both figures."""
    hypervisor = make_hypervisor(scratch=small, scratch_reserve=64 * MIB)
    with pytest.raises(NoSpace) as caught, hypervisor.capture(guest.name, NOW):
        pass
    free = shutil.disk_usage(small).free
    assert f"{free} bytes are free in {small}, {64 * MIB + 64 * MIB // 20} are needed" in caught.value.message
    assert guest.checkpoints == []


def test_scratch_space_running_out_ends_the_capture(make_hypervisor: Hypervisors, guest: Guest, small: Path) -> None:
    """The guest does not see an error: the job is ended before QEMU has none left."""
    hypervisor = make_hypervisor(scratch=small, scratch_reserve=16 * MIB)

    def overwrite() -> None:
        guest.qemu_io("vda", "write -P 0xbb 0 26M")
        until(lambda: guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, "the job to be ended")
        guest.qemu_io("vda", "write -P 0xbb 26M 6M")

    with pytest.raises(NoSpace, match="to spare the guest"):
        copy_after(hypervisor, guest, NOW, overwrite)
    assert list(small.iterdir()) == []
    assert guest.checkpoints == []


def test_scratch_space_runs_out_while_libvirtd_is_away(
    make_hypervisor: Hypervisors, guest: Guest, small: Path, libvirtd: Libvirtd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is ended as soon as libvirtd is back."""
    hypervisor = make_hypervisor(scratch=small, scratch_reserve=12 * MIB)
    end, tried = BackupJob.end, threading.Event()

    def notice(job: BackupJob) -> None:
        try:
            end(job)
        except Unavailable:
            tried.set()
            raise

    monkeypatch.setattr(BackupJob, "end", notice)
    with hypervisor.capture(guest.name, NOW) as capture:
        libvirtd.stop(signal.SIGKILL)
        (small / "filler").write_bytes(bytes(30 * MIB))
        assert tried.wait(60)
        libvirtd.start()
        until(lambda: guest.domain.jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE, "the job to be ended")
        guest.qemu_io("vda", "write -P 0xbb 0 32M")
        with pytest.raises(NoSpace, match="to spare the guest"):
            capture.check()


def test_orphans_of_dead_makers_go_and_those_of_the_living_stay(
    hypervisor: Libvirt, guest: Guest, tmp_path: Path
) -> None:
    """A checkpoint says who made it: a process that lives, here or maybe elsewhere, keeps its own."""
    host = os.uname().nodename
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    start = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
    now = 4_000_000_000  # in 2096
    makers = {
        "alive": (host, boot, 1, start, now),
        "reused": (host, boot, 1, start + 1, now),
        "rebooted": (host, "other", 1, start, 1_000_000_000),
        "elsewhere": ("elsewhere", "other", 1, 1, now),
        "namesake": (host, "other", 1, 1, now),
        "longago": ("elsewhere", "other", 1, 1, 1_000_000_000),
    }
    names = {}
    for number, (label, (host, boot, pid, started, created)) in enumerate(makers.items()):
        names[label] = f"vbackup-{OWNER[:8]}-{number:08x}"
        maker = {"owner": OWNER, "host": host, "boot": boot, "pid": pid, "start": started, "created": created}
        maker["machine"] = "0" * 32 if label == "namesake" else Path("/etc/machine-id").read_text().strip()
        if label in {"elsewhere", "longago"}:
            del maker["machine"]  # as in a container
        guest.domain.checkpointCreateXML(
            f"<domaincheckpoint><name>{names[label]}</name><description>{json.dumps(maker)}</description>"
            "<disks><disk name='vda' checkpoint='bitmap'/></disks></domaincheckpoint>"
        )
    with hypervisor.capture(guest.name, NOW) as capture:
        assert capture.marker is not None
        living = {names[label] for label in ("alive", "elsewhere", "namesake")}
        assert set(guest.checkpoints) == {*living, capture.marker["checkpoint"]}


def test_a_dead_restore_is_swept(hypervisor: Libvirt, images: Path, guest: Guest, tmp_path: Path) -> None:
    """SIGKILL in mid-restore: the files go with the next sweep."""
    copy = backup(hypervisor, guest.name)
    script = f"""
import os, sys
from pathlib import Path
from vbackup.api import HypervisorContext, MachineDescription, RestoreDisk, RestoreRequest
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.options import LibvirtOptions
options = LibvirtOptions(storage={str(images)!r})
hypervisor = Libvirt(options, HypervisorContext("lab", Path({str(tmp_path / "state")!r})))
machine = MachineDescription.model_validate_json(sys.stdin.read())
with hypervisor.restore(machine, [RestoreDisk("vda", {64 * MIB}, "qcow2")], {{}}, RestoreRequest(name="copy")):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script], input=copy.description.model_dump_json().encode(), check=False)
    assert len(list(images.iterdir())) == 1
    assert hypervisor.sweep(OWNER) == ["removed what a restore of copy had left"]
    assert list(images.iterdir()) == []
    assert list(SCRATCH.iterdir()) == []


def test_a_disk_cannot_be_unplugged_meanwhile(hypervisor: Libvirt, make_guest: GuestFactory) -> None:
    """libvirt refuses it while the job runs, and the capture goes on."""
    guest = make_guest(
        disks=(Disk("vda"), Disk("sda", bus="scsi")),
        extra_devices="<controller type='scsi' model='virtio-scsi'/>",
    )
    guest.start(paused=True)
    with hypervisor.capture(guest.name, NOW) as capture:
        with pytest.raises(libvirt.libvirtError, match="block job"):
            guest.domain.detachDeviceAlias("scsi0-0-0-0", libvirt.VIR_DOMAIN_AFFECT_LIVE)
        assert set(copy_all(capture).disks) == {"vda", "sda"}
