"""The contract of hypervisors on machines in memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from vbackup.api import Finding, Level, MachineRef, Unavailable
from vbackup.testing.guests import FakeDisk, FakeGuest
from vbackup.testing.hypervisor_contract import (
    Find,
    HypervisorContract,
    Leftovers,
    LostGuestContract,
    MarkersContract,
    TwoGuestsContract,
    UnreachableContract,
)
from vbackup.testing.hypervisors import FakeHypervisor

MIB = 1 << 20


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


class Away(FakeHypervisor):
    """One that cannot be reached."""

    def machines(self) -> list[MachineRef]:
        raise Unavailable("nobody listens")

    def capture(self, machine, request):
        raise Unavailable("nobody listens")

    def check(self) -> list[Finding]:
        return [Finding("fake", Level.ERROR, "nobody listens")]


class FakeContract(TwoGuestsContract, MarkersContract, LostGuestContract, UnreachableContract, HypervisorContract):
    """Machines that run, and can be frozen; ``kind`` is the hypervisor, ``away`` one that cannot be reached."""

    quiesces = True
    captures_memory = True
    kind: type[FakeHypervisor] = FakeHypervisor
    away: type[Away] = Away

    @pytest.fixture
    def unreachable(self) -> Away:
        return self.away()

    @pytest.fixture
    def hypervisor(self) -> FakeHypervisor:
        return self.kind()

    @pytest.fixture
    def guest(self, hypervisor: FakeHypervisor) -> FakeGuest:
        guest = FakeGuest.make(hypervisor, "web", vda=noise(MIB, 1) + bytes(MIB), vdb=noise(MIB + 512, 2))
        guest.machine.files["nvram"] = b"variables"
        guest.machine.memory = FakeDisk(bytearray(noise(MIB + 4711, 3)))
        return guest

    @pytest.fixture
    def second(self, hypervisor: FakeHypervisor) -> FakeGuest:
        return FakeGuest.make(hypervisor, "db", vda=noise(2 * MIB, 4))

    @pytest.fixture
    def leftovers(self, hypervisor: FakeHypervisor) -> Leftovers:
        return lambda: ["capture"] * hypervisor.open_captures + ["restore"] * hypervisor.open_restores

    @pytest.fixture
    def find(self, hypervisor: FakeHypervisor) -> Find:
        return partial(FakeGuest, hypervisor)

    @pytest.fixture
    def markers(self, guest: FakeGuest) -> Callable[[], list[str]]:
        return lambda: [name for disk in guest.machine.disks.values() for name in disk.dirty]

    @pytest.fixture
    def lose(self, hypervisor: FakeHypervisor, guest: FakeGuest) -> Callable[[], None]:
        return lambda: hypervisor.guests.clear()
