"""Reading a frozen disk as vSphere exports it, against the simulator."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import CaptureLost, Corrupt, Range, Unavailable, Unsupported
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.lease import LeaseUrl
from vbackup_vsphere.readers import nfc
from vbackup_vsphere.readers.nfc import Nfc, NfcReader, find_url
from vbackup_vsphere.session import Session

from .frozen import MIB, Machine, content, fill, read, read_all, session_with

SIZE = 24 * MIB


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as one:
        yield one


@pytest.fixture(scope="module")
def session(simulator: Simulator) -> Iterator[Session]:
    with session_with(simulator) as one:
        yield one


@pytest.fixture(scope="module")
def machine(simulator: Simulator, session: Session) -> Machine:
    """A machine with three disks, two of one size."""
    machine = Machine.find(simulator, session)
    machine.resize(SIZE)
    fill(machine, SIZE)
    for seed in (2, 3):
        fill(machine, 8 * MIB, simulator.add_disk(machine.name, 8 * MIB), seed)
    return machine


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfc, "PAUSE", 0.01)


def counted(simulator: Simulator, method: str) -> int:
    return simulator.calls().get(method, 0)


def test_all_disks_are_read_at_once_with_one_lease(simulator: Simulator, machine: Machine) -> None:
    want = {disk.device: content(simulator.disk(machine.name, disk.device)) for disk in disks_of(machine)}
    before = counted(simulator, "ExportSnapshot"), counted(simulator, "HttpNfcLeaseComplete")
    way = Nfc()
    with machine.frozen() as (frozen, disks):
        machine.write(0, b"written after the snapshot")
        together = threading.Barrier(len(disks))

        def copy(disk: VmDisk) -> tuple[int, bytes]:
            with way.open(frozen, disk) as reader:
                assert reader.is_sequential
                assert reader.extents() is None
                together.wait()
                return disk.device, read_all(reader, disk.size)

        with ThreadPoolExecutor(len(disks)) as pool:
            got = dict(pool.map(copy, disks))
    machine.write(0, want[disks[0].device][:512])
    assert got == want
    after = counted(simulator, "ExportSnapshot"), counted(simulator, "HttpNfcLeaseComplete")
    assert after == (before[0] + 1, before[1] + 1)


def disks_of(machine: Machine) -> list[VmDisk]:
    with machine.frozen() as (_, disks):
        return disks


def test_ranges_are_cut_out_and_holes_are_zeros(simulator: Simulator, machine: Machine) -> None:
    rng = random.Random(3)
    edges = sorted(rng.sample(range(0, SIZE + 1, 512), 60))
    ranges = [Range(a, b - a) for a, b in itertools.pairwise(edges) if b - a <= 4 * MIB and rng.random() < 0.7]
    with machine.frozen() as (frozen, disks), Nfc().open(frozen, disks[0]) as reader:
        want = content(simulator.disk(machine.name, disks[0].device))
        for some in (ranges, [Range(SIZE - 512, 512)], []):
            assert read(reader, some) == [want[r.offset : r.offset + r.length] for r in some]


def test_a_stream_that_is_cut_is_begun_again(simulator: Simulator, machine: Machine) -> None:
    with machine.frozen() as (frozen, disks), Nfc().open(frozen, disks[0]) as reader:
        simulator.http_fault("/nfc/", cut_at=400_000, method="GET", times=2)
        assert read_all(reader, SIZE) == content(simulator.disk(machine.name, disks[0].device))


def test_a_stream_that_is_always_cut_is_given_up(simulator: Simulator, machine: Machine) -> None:
    with machine.frozen() as (frozen, disks), Nfc().open(frozen, disks[0]) as reader:
        simulator.http_fault("/nfc/", cut_at=100_000, method="GET", times=nfc.ATTEMPTS)
        with pytest.raises(Unavailable) as caught:
            read_all(reader, SIZE)
        assert caught.value.transient


def test_a_stream_that_ends_early_is_begun_again(simulator: Simulator, machine: Machine) -> None:
    with machine.frozen() as (frozen, disks), Nfc().open(frozen, disks[0]) as reader:
        simulator.http_fault("/nfc/", truncate_at=500_000, method="GET", times=1)
        assert read_all(reader, SIZE) == content(simulator.disk(machine.name, disks[0].device))


@pytest.mark.parametrize("flip_at", [20, 66_000, 200_000])
def test_a_wrong_byte_is_found(simulator: Simulator, machine: Machine, flip_at: int) -> None:
    with machine.frozen() as (frozen, disks), Nfc().open(frozen, disks[0]) as reader:
        simulator.http_fault("/nfc/", flip_at=flip_at, method="GET", times=nfc.ATTEMPTS)
        with pytest.raises((Corrupt, Unavailable)):
            read_all(reader, SIZE)
        simulator.clear_faults()


def test_after_an_error_the_lease_is_aborted(simulator: Simulator, machine: Machine) -> None:
    before = counted(simulator, "HttpNfcLeaseAbort")
    with machine.frozen() as (frozen, disks), contextlib.suppress(KeyError), Nfc().open(frozen, disks[0]) as reader:
        next(iter(reader.read([Range(0, 512)])))
        raise KeyError
    assert counted(simulator, "HttpNfcLeaseAbort") == before + 1


def test_a_host_that_exports_no_snapshot_leaves_it_to_others(simulator: Simulator, machine: Machine) -> None:
    simulator.fault("ExportSnapshot", "NotSupported")
    with (
        machine.frozen() as (frozen, disks),
        pytest.raises(Unsupported, match=f"exporting {machine.name}"),
        Nfc().open(frozen, disks[0]),
    ):
        pass


def test_a_stream_of_another_size_is_refused(machine: Machine) -> None:
    with (
        machine.frozen() as (frozen, disks),
        Nfc().open(frozen, replace(disks[0], size=SIZE + MIB)) as reader,
        pytest.raises(Corrupt, match=f"is of a disk of {SIZE} bytes"),
    ):
        read_all(reader, SIZE)


def test_an_encrypted_disk_is_left_to_others(machine: Machine) -> None:
    with machine.frozen() as (frozen, disks):
        assert Nfc().why_not(frozen, disks[0]) is None
        assert Nfc().why_not(frozen, replace(disks[0], is_encrypted=True)) is not None


def test_a_lost_lease_ends_the_capture() -> None:
    with Simulator(lease_timeout="1s") as simulator, session_with(simulator) as session:
        machine = Machine.find(simulator, session)
        simulator.fault("HttpNfcLeaseProgress", "Timedout", times=1000)
        with machine.frozen() as (frozen, disks), Nfc().open(frozen, disks[0]) as reader:
            assert isinstance(reader, NfcReader)
            reader._lease.pause(60)
            with pytest.raises(CaptureLost):
                read_all(reader, disks[0].size)


def _devices(*sizes: int) -> list[object]:
    controller = vim.vm.device.ParaVirtualSCSIController(key=1000, busNumber=0, sharedBus="noSharing")
    found: list[object] = [controller]
    for number, size in enumerate(sizes):
        found.append(
            vim.vm.device.VirtualDisk(key=2000 + number, controllerKey=1000, unitNumber=number, capacityInBytes=size)
        )
    return found


def _url(key: str, *, is_disk: bool = True) -> LeaseUrl:
    return LeaseUrl(key, "", f"https://*/nfc/{key}", is_disk, key, None)


def _disk(machine: Machine, number: int, size: int) -> VmDisk:
    return replace(disks_of(machine)[0], device=2000 + number, size=size)


def test_disks_are_found_by_where_they_are_plugged_in(machine: Machine) -> None:
    urls = [_url("/vm-1/ParaVirtualSCSIController0:1"), _url("/vm-1/ParaVirtualSCSIController0:0")]
    assert find_url(urls, _devices(MIB, MIB), _disk(machine, 1, MIB), "disk") is urls[0]


def test_disks_without_such_keys_are_found_by_their_order(machine: Machine) -> None:
    urls = [_url("nvram", is_disk=False), _url("a"), _url("b")]
    assert find_url(urls, _devices(MIB, 2 * MIB), _disk(machine, 1, 2 * MIB), "disk") is urls[2]


def test_disks_that_could_be_confused_are_refused(machine: Machine) -> None:
    with pytest.raises(Unsupported, match="does not tell which"):
        find_url([_url("a"), _url("b")], _devices(MIB, MIB), _disk(machine, 1, MIB), "disk")
    with pytest.raises(Unsupported, match="does not tell which"):
        find_url([_url("a")], _devices(MIB, 2 * MIB), _disk(machine, 1, 2 * MIB), "disk")
