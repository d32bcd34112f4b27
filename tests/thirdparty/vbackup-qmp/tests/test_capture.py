"""What the contract does not know of: QEMU that is killed or started again, its bitmaps, its one NBD server ..."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from machine import BLOCK, Image, Lab, QemuMachine, make
from vbackup_qmp import monitor
from vbackup_qmp.hypervisor import QmpHypervisor

from vbackup.api import (
    Busy,
    CaptureLost,
    CaptureRequest,
    Firmware,
    NoSpace,
    Quiesce,
    Range,
    RestoreRequest,
    Unavailable,
    Unsupported,
)
from vbackup.testing.crash import processes, ticking
from vbackup.testing.hypervisor_contract import Backups, assert_same, contents, copy_disk, save

OWNER = "0123456789abcdef" * 2


@pytest.fixture
def backups(hypervisor: QmpHypervisor, guest: QemuMachine) -> Backups:
    """What a repository has of the machine, which is nothing yet."""
    return Backups(hypervisor, guest)


def test_qemu_is_killed_during_a_capture(lab: Lab, guest: QemuMachine, backups: Backups) -> None:
    """The capture is lost, which is said by whoever asks next; its scratch files are removed, and all is read again."""
    backups.run()
    with pytest.raises(CaptureLost), lab.opens().capture("web", backups.request()) as capture:  # noqa: PT012
        guest.kill()
        with pytest.raises(CaptureLost, match="web/root"):
            list(capture.disks[0].read([Range(0, BLOCK)]))
        with pytest.raises(CaptureLost):
            list(capture.disks[1].extents(full=True))
        with pytest.raises(Unavailable, match="nobody listens"):
            capture.check()
        raise CaptureLost("as the engine does")
    assert lab.leftovers() == []
    guest.start()
    seen = backups.run()
    assert seen.full_reasons["root"] == "the bitmap is gone (QEMU was killed, or the image replaced)"
    assert seen.full_reasons["data"] == (
        "changes of raw images are tracked only as long as QEMU runs, and it was started again"
    )
    assert not any(backups.run().full_reasons.values())


def test_switched_off_after_all_was_read(lab: Lab, guest: QemuMachine, backups: Backups) -> None:
    """That is no error; and the bitmap is stored."""
    with backups.hypervisor.capture("web", backups.request()) as capture:
        copies, _ = backups.copy(capture)
        guest.stop()
    backups.commit(capture, copies)
    assert lab.leftovers() == []
    guest.start()
    assert backups.run().full_reasons["root"] is None


def test_qemu_of_another_user(short: Path) -> None:
    """The scratch files are that user's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    short.chmod(0o755)
    directory = short / "web"
    machine = QemuMachine.small(directory, starts=False)
    machine.command = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *machine.command)
    for path in (directory, *directory.iterdir()):
        os.chown(path, 65534, 65534)
    machine.start()
    lab = Lab(short, {"web": machine})
    try:
        backups = Backups(lab.opens(), machine)
        backups.run()
        machine.write("root", 0, b"9" * BLOCK)
        assert not any(backups.run().full_reasons.values())
        assert lab.leftovers() == []
    finally:
        lab.close()


def test_qemu_is_started_again(guest: QemuMachine, backups: Backups) -> None:
    """A qcow2 image takes its bitmap along; a raw one is read in full, once."""
    backups.run()
    guest.write("root", BLOCK, b"1" * BLOCK)
    guest.stop()
    guest.start()
    guest.write("root", 3 * BLOCK, b"2" * BLOCK)
    seen = backups.run()
    assert seen.full_reasons["root"] is None
    assert seen.unchanged["root"] == (3 << 20) - 2 * BLOCK
    assert seen.full_reasons["data"]


def test_a_bitmap_that_was_in_use_when_qemu_was_killed(guest: QemuMachine, backups: Backups) -> None:
    """QEMU calls it inconsistent: it is read in full, and the next time by what changed."""
    backups.run()
    guest.stop()
    guest.start()
    guest.write("root", 0, b"3" * BLOCK)
    guest.kill()
    guest.start()
    assert backups.run().full_reasons["root"] == "the bitmap is inconsistent (QEMU was killed)"
    assert backups.run().full_reasons["root"] is None
    assert len(guest.bitmaps()) == 2


def test_a_bitmap_that_somebody_removed(guest: QemuMachine, backups: Backups) -> None:
    """The disk is read in full, and the other one is not."""
    backups.run()
    name = next(iter(guest.bitmaps())).rpartition("/")[2]
    guest.monitor.ask("block-dirty-bitmap-remove", node="data", name=name)
    seen = backups.run()
    assert (bool(seen.full_reasons["data"]), seen.full_reasons["root"]) == (True, None)


def test_a_disk_that_was_resized(guest: QemuMachine, backups: Backups) -> None:
    """It is read in full, and says from what to what."""
    backups.run()
    guest.monitor.ask("block_resize", **{"node-name": "root", "size": 4 << 20})
    assert backups.run().full_reasons["root"] == f"resized from {3 << 20} to {4 << 20} bytes"
    assert backups.run().full_reasons["root"] is None


def test_an_old_qcow2_image(short: Path) -> None:
    """Version 2 has no place for bitmaps: it is tracked as long as QEMU runs."""
    image = Image(short / "old.qcow2", "qcow2", 1 << 20, ("-o", "compat=0.10"))
    image.make(b"x" * BLOCK)
    machine = QemuMachine(short, "old", {"old": image})
    lab = Lab(short, {"old": machine})
    machine.start()
    try:
        backups = Backups(lab.opens(), machine)
        backups.run()
        assert backups.run().full_reasons["old"] is None
        machine.stop()
        machine.start()
        assert backups.run().full_reasons["old"]
    finally:
        lab.close()


_SLOTS = 32


@pytest.fixture
def writer(guest: QemuMachine) -> Iterator[None]:
    """Writes numbers, one after the other, to places on all disks by turns."""
    stop = threading.Event()

    def write() -> None:
        for number in itertools.count(1):
            if stop.is_set():
                return
            place, disk = divmod(number % _SLOTS, 2)
            guest.write(guest.disks[disk], place * BLOCK, number.to_bytes(8, "big") * 512)

    thread = threading.Thread(target=write)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.mark.usefixtures("writer")
def test_all_disks_are_of_one_moment(backups: Backups, guest: QemuMachine) -> None:
    """What was written before something that is there, on whichever disk, is there; and nothing that came later."""
    for _ in range(6):
        with backups.hypervisor.capture("web", backups.request()) as capture:
            copies, _ = backups.copy(capture)
        backups.commit(capture, copies)
        found = {slot: _number(copies[guest.disks[slot % 2]], slot // 2 * BLOCK) for slot in range(_SLOTS)}
        last = max(found.values())
        assert found == {slot: max(0, last - (last - slot) % _SLOTS) for slot in range(_SLOTS)}


def _number(data: bytes, offset: int) -> int:
    number = int.from_bytes(data[offset : offset + 8], "big")
    return number if number < 1 << 40 else 0  # it is what was there before


def test_with_io_threads(short: Path) -> None:
    """QEMU before 9.0 would be killed by the end of an NBD connection: there nothing is tried."""
    machine = QemuMachine.small(
        short / "web", paused=False, arguments=("-object", "iothread,id=io"), device=",iothread=io"
    )
    lab = Lab(short, {"web": machine})
    try:
        is_safe = machine.monitor.ask("query-version")["qemu"]["major"] >= 9
        backups = Backups(lab.opens(), machine)
        with nullcontext() if is_safe else pytest.raises(Unsupported, match="I/O threads"):
            backups.run()
        machine.write("root", 0, b"7" * BLOCK)
        assert machine.read("root")[:BLOCK] == b"7" * BLOCK
        machine.stop()
        backups.run()
        assert lab.leftovers() == []
    finally:
        lab.close()


def test_while_its_processor_runs(short: Path) -> None:
    """A machine that is not paused, and boots from its disks as far as it can."""
    lab = Lab(short, {"web": QemuMachine.small(short / "web", paused=False)})
    try:
        backups = Backups(lab.opens(), lab.machines["web"])
        backups.run()
        lab.machines["web"].write("root", BLOCK, b"8" * BLOCK)
        assert not any(backups.run().full_reasons.values())
    finally:
        lab.close()


def test_a_monitor_that_somebody_else_uses(
    lab: Lab, hypervisor: QmpHypervisor, guest: QemuMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, after a while, and what to do."""
    monkeypatch.setattr(monitor, "GREETING_SECONDS", 0.5)
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(guest.socket))
        other.recv(1)
        with pytest.raises(Busy, match="several -qmp"), hypervisor.capture("web", CaptureRequest(OWNER)):
            pass
        assert [machine.running for machine in hypervisor.machines()] == [True]
    assert lab.leftovers() == []


def test_an_nbd_server_of_somebody_else(lab: Lab, hypervisor: QmpHypervisor, guest: QemuMachine) -> None:
    """QEMU has only one: it is left alone."""
    path = str(lab.directory / "theirs")
    guest.monitor.ask("nbd-server-start", addr={"type": "unix", "data": {"path": path}})
    with pytest.raises(Busy, match="NBD server"), hypervisor.capture("web", CaptureRequest(OWNER)):
        pass
    assert lab.leftovers() == []
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(path)
        assert other.recv(8) == b"NBDMAGIC"


def test_no_room_for_scratch_files(lab: Lab, guest: QemuMachine) -> None:
    """It is refused before anything is made."""
    hypervisor = make({**lab.options, "reserve": 1 << 60}, lab.state)
    with pytest.raises(NoSpace, match="bytes are free"), hypervisor.capture("web", CaptureRequest(OWNER)):
        pass
    assert lab.leftovers() == []
    guest.write("root", 0, b"4" * BLOCK)


def test_the_scratch_disk_fills_up(lab: Lab, small_disk: Path, guest: QemuMachine) -> None:
    """The capture is given up before the guest would get an error."""
    hypervisor = make({**lab.options, "scratch": str(small_disk), "reserve": 4 << 20}, lab.state)
    guest.write("root", 0, b"1" * 40 * BLOCK)
    request = CaptureRequest(OWNER, quiesce=Quiesce.NO)
    with pytest.raises(NoSpace, match="wrote more"), hypervisor.capture("web", request) as capture:  # noqa: PT012
        for number in range(1, 40):
            guest.write("root", number * BLOCK, bytes([number]) * BLOCK)
        guest.monitor.wait("JOB_STATUS_CHANGE", status="null")
        with pytest.raises(CaptureLost):
            copy_disk(capture.disks[0])
        with pytest.raises(NoSpace, match="the guest wrote more"):
            capture.check()
        raise CaptureLost("as the engine does")
    assert lab.leftovers() == []
    assert guest.read("root")[39 * BLOCK - 1] == 38


def test_dying_at_every_word_to_qemu(lab: Lab, guest: QemuMachine, backups: Backups) -> None:
    """Whatever a dead process left, a sweep removes it, and the next capture is right."""
    backups.run()
    opens, request = lab.opens, backups.request()

    def action(tick: object) -> None:
        ticking(monitor.Monitor, ["ask"], tick)
        with opens().capture("web", request) as capture:
            copy_disk(capture.disks[0])

    deaths = 0
    for death in processes(action, every=7):
        deaths += 1
        backups.hypervisor.sweep(OWNER)
        assert lab.leftovers() == [], death
    assert deaths > 5
    guest.write("data", BLOCK, b"5" * BLOCK)
    assert not any(backups.run().full_reasons.values())


def test_a_machine_that_is_off_and_unknown(lab: Lab, guest: QemuMachine) -> None:
    """Without its images it cannot be captured, which is said at once."""
    guest.stop()
    options = {**lab.options, "machines": {"web": {"socket": str(guest.socket)}}}
    with (
        pytest.raises(Unavailable, match="configure its images") as told,
        make(options, lab.state).capture("web", CaptureRequest(OWNER)),
    ):
        pass
    assert not told.value.transient


def test_what_is_left_out_is_told(short: Path) -> None:
    """Firmware, and what can only be read; a disk of the old ``-drive`` goes by its id."""
    for name in ("vars", "fixed", "legacy"):
        (short / name).write_bytes(bytes(1 << 20))
    arguments = ["-drive", f"if=pflash,format=raw,file={short / 'vars'}"]
    arguments += ["-drive", f"if=none,id=fixed,format=raw,readonly=on,file={short / 'fixed'}"]
    arguments += ["-drive", f"if=none,id=legacy,format=raw,file={short / 'legacy'}"]
    arguments += ["-device", "virtio-blk-pci,drive=fixed", "-device", "virtio-blk-pci,drive=legacy"]
    lab = Lab(short, {"web": QemuMachine.small(short / "web", arguments=arguments)})
    try:
        with lab.opens().capture("web", CaptureRequest(OWNER, quiesce=Quiesce.NO, memory=True)) as capture:
            assert {disk.key for disk in capture.disks} == {"root", "data", "legacy"}
            assert capture.machine.firmware is Firmware.UEFI
            assert sorted(capture.notes) == [
                "fixed was left out: the machine can only read it",
                "pflash0 (variables of the firmware) was left out",
                "the memory was left out: hypervisors of type qmp do not capture it",
            ]
    finally:
        lab.close()


def test_off_and_described_as_it_ran(guest: QemuMachine, hypervisor: QmpHypervisor) -> None:
    """What is known of a machine that is off is what was so when it ran last."""
    request = CaptureRequest(OWNER, quiesce=Quiesce.NO)
    with hypervisor.capture("web", request) as capture:
        running = capture.machine
    assert (running.memory, running.cpus, running.arch) == (16 << 20, 1, "x86_64")
    assert {disk.bus for disk in running.disks} == {"virtio"}
    guest.stop()
    with hypervisor.capture("web", request) as capture:
        assert capture.machine == running
        assert capture.quiesced


def test_off_and_on_a_block_device(short: Path, device: Path) -> None:
    """It is read in full, as a device keeps no bitmap, and put back in place."""
    machine = QemuMachine(short, "web", {"root": Image(device, "raw", 2 << 20)})
    lab = Lab(short, {"web": machine})
    backups = Backups(lab.opens(), machine)
    backups.run()
    point = save(lab.opens(), machine)
    machine.write("root", 0, b"0" * BLOCK)
    assert backups.run().full_reasons["root"]
    point.restore(lab.opens(), RestoreRequest(overwrite=True))
    assert machine.read("root") == point.disks["root"] == b"\xdd" * (2 << 20)


def test_images_of_a_machine_that_answers_elsewhere(lab: Lab, guest: QemuMachine) -> None:
    """QEMU's locks tell that it runs, and it is not touched."""
    machines = {"web": {**guest.options, "socket": str(lab.directory / "elsewhere")}}
    hypervisor = make({**lab.options, "machines": machines}, lab.state)
    with pytest.raises(Busy, match="in use"), hypervisor.capture("web", CaptureRequest(OWNER)):
        pass
    assert lab.leftovers() == []


def test_full_after_all(guest: QemuMachine, backups: Backups) -> None:
    """The whole disk can be read although what changed is known: the engine may have lost the rest."""
    backups.run()
    guest.write("root", 0, b"6" * BLOCK)
    now = contents(guest)
    with backups.hypervisor.capture("web", backups.request()) as capture:
        copies = {disk.key: copy_disk(disk, full=True)[0] for disk in capture.disks}
    assert_same(copies, now)
