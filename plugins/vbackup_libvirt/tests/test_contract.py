"""The contract of hypervisors, on machines that run under the lab's libvirtd."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from vbackup.api import HypervisorContext
from vbackup.testing.hypervisor_contract import (
    NEW,
    Find,
    GuestUnderTest,
    HypervisorContract,
    Leftovers,
    LostGuestContract,
    MarkersContract,
    Opens,
    ProcessContract,
    TwoGuestsContract,
    UnreachableContract,
)
from vbackup.testing.lab.domain import Disk
from vbackup.testing.lab.factory import GuestFactory
from vbackup.testing.lab.guest import Guest
from vbackup_libvirt.hypervisor import Libvirt
from vbackup_libvirt.options import LibvirtOptions

from .conftest import Hypervisors
from .test_failures import SCRATCH

MIB = 1 << 20
_numbers = itertools.count()


class Machine(GuestUnderTest):
    """A machine of the lab, paused or off. What QEMU has not written to the image yet is known here."""

    def __init__(self, guest: Guest, place: Path) -> None:
        self.guest = guest
        self.name = guest.name
        self.disks: Sequence[str] = list(guest.disks)
        self._place = place
        self._known: dict[str, bytearray] = {}

    @property
    def is_on(self) -> bool:
        return bool(self.guest.domain.isActive())

    def write(self, disk: str, offset: int, data: bytes) -> None:
        fresh = self._place / f"fresh-{next(_numbers)}"
        fresh.write_bytes(data)
        self._change(disk, f"write -s {fresh} {offset} {len(data)}", offset, data)
        fresh.unlink()

    def zero(self, disk: str, offset: int, length: int) -> None:
        self._change(disk, f"write -z -u {offset} {length}", offset, bytes(length))

    def _change(self, disk: str, command: str, offset: int, data: bytes) -> None:
        if self.is_on:
            self.guest.qemu_io(disk, command)
            self._known[disk][offset : offset + len(data)] = data
        else:
            argv = ["qemu-io", "-f", "qcow2", "-c", command, self.guest.disks[disk]]
            subprocess.run(argv, check=True, capture_output=True)

    def read(self, disk: str) -> bytes:
        return bytes(self._known[disk]) if self.is_on else self._image(disk)

    def _image(self, disk: str) -> bytes:
        flat = self._place / f"flat-{next(_numbers)}"
        subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", self.guest.disks[disk], flat], check=True)
        content = flat.read_bytes()
        flat.unlink()
        return content

    def stop(self) -> None:
        self.guest.destroy()

    def start(self) -> None:
        if not self.is_on:
            self._known = {disk: bytearray(self._image(disk)) for disk in self.disks}
            self.guest.start(paused=True)


def open_libvirt(directory: Path) -> Libvirt:
    options = LibvirtOptions(uri="qemu:///system", scratch_reserve=1 << 20, storage=directory / "images")
    return Libvirt(options, HypervisorContext("lab", directory / "state"))


class TestRunning(
    TwoGuestsContract, MarkersContract, LostGuestContract, ProcessContract, UnreachableContract, HypervisorContract
):
    captures_memory = True

    @pytest.fixture
    def hypervisor(self, guest: Machine, tmp_path: Path, images: Path) -> Libvirt:
        return open_libvirt(tmp_path)

    @pytest.fixture
    def guest(self, make_guest: GuestFactory, tmp_path: Path) -> Machine:
        return self._made(make_guest, tmp_path, Disk("vda", 2 * MIB), Disk("sdb", MIB, bus="scsi"))

    @pytest.fixture
    def second(self, make_guest: GuestFactory, tmp_path: Path) -> Machine:
        return self._made(make_guest, tmp_path, Disk("vda", 2 * MIB))

    @staticmethod
    def _made(make_guest: GuestFactory, place: Path, *disks: Disk) -> Machine:
        machine = Machine(make_guest(disks=disks), place)
        for number, disk in enumerate(machine.disks):
            machine.write(disk, 0, bytes([number + 1]) * (MIB // 2))
        machine.start()
        return machine

    @pytest.fixture
    def leftovers(self, tmp_path: Path) -> Leftovers:
        def names() -> list[str]:
            there = [*SCRATCH.iterdir()] if SCRATCH.exists() else []
            state = tmp_path / "state"
            return [path.name for path in (*there, *(state.rglob("*.json") if state.exists() else ()))]

        return names

    @pytest.fixture
    def find(self, make_guest: GuestFactory, tmp_path: Path) -> Find:
        return lambda name: Machine(make_guest.adopt(name), tmp_path)

    @pytest.fixture(autouse=True)
    def _removed(self, make_guest: GuestFactory) -> None:
        make_guest.adopt(NEW)

    @pytest.fixture
    def markers(self, guest: Machine) -> Callable[[], list[str]]:
        return lambda: guest.guest.checkpoints

    @pytest.fixture
    def lose(self, guest: Machine) -> Callable[[], None]:
        def lose() -> None:
            paths = guest.guest.disks.values()
            guest.guest.remove()
            for path in paths:
                path.unlink()

        return lose

    @pytest.fixture
    def opens(self, tmp_path: Path) -> Opens:
        return partial(open_libvirt, tmp_path)

    @pytest.fixture
    def unreachable(self, make_hypervisor: Hypervisors) -> Libvirt:
        return make_hypervisor("qemu+unix:///system?socket=/nowhere")
