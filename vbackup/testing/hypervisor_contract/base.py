"""What all parts of the contract stand on: the fixtures that an author overrides, and what the hypervisor can do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

import pytest

from vbackup.api import Hypervisor, MachineRef

OWNER = "0123456789abcdef" * 2
OTHER_OWNER = "fedcba9876543210" * 2
BLOCK = 64 << 10
"""Bytes that the tests write and compare in."""
MIB = 1 << 20

Leftovers = Callable[[], Collection[str]]
"""Names all that captures and restores make for a time and that is there now."""


class GuestUnderTest(Protocol):
    """A machine of the hypervisor under test, whose disks the tests write and read past the plugin.

    It has one or more disks of 1 to 64 MiB each, not all zeros; two test more than one. Nothing else writes to them.
    Subclass it, and leave out what a machine does not have.
    """

    name: str
    """What `Hypervisor.machines` calls it."""
    disks: Sequence[str]
    """The keys of its disks, in their order."""

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Write to a disk. On return every capture whose moment is still to come has it.

        Offsets and lengths are multiples of 4096 bytes. Raises: `Busy` while the machine is captured, where it cannot
        be written to then; see `OneGuest.writes_while_captured`.
        """
        ...

    def read(self, disk: str) -> bytes:
        """Return what a disk holds now; never called while the machine is captured."""
        ...

    def zero(self, disk: str, offset: int, length: int) -> None:
        """Make a range read as zeros, best by a discard; if left out zeros are written."""
        self.write(disk, offset, bytes(length))

    def stop(self) -> None:
        """Switch it off, if it is on; left out for machines that never run."""

    def start(self) -> None:
        """Switch it on, if it is off; left out for machines that never run."""


class OneGuest:
    """Fixtures to override, and what to say of the hypervisor. What it says that it cannot, it must refuse."""

    tracks = True
    """Whether it knows what changed since a marker. If False, every capture is a full one and says why."""
    quiesces = False
    """Whether it can freeze the file systems of ``guest``: then `Quiesce.YES` must succeed, else it must fail."""
    captures_memory = False
    """Whether `CaptureRequest.memory` gives the memory of ``guest``, which then has to be running."""
    writes_while_captured = True
    """Whether ``guest`` can be written to while it is captured. If False, such a write has to be refused."""
    starts = True
    """Whether `RestoreRequest.start` works."""
    lists_new_machines = True
    """Whether `machines` lists what was restored as new; False where machines are a matter of the configuration."""

    @pytest.fixture
    def hypervisor(self) -> Hypervisor:
        """Override: the hypervisor under test, with options that work and a state directory of the test's own."""
        raise NotImplementedError("override the fixture hypervisor")

    @pytest.fixture
    def guest(self) -> GuestUnderTest:
        """Override: a machine of that hypervisor."""
        raise NotImplementedError("override the fixture guest")

    @pytest.fixture
    def leftovers(self) -> Leftovers:
        """Override: names what captures and restores make for a time, of all that is there now.

        Snapshots, jobs, servers, scratch and temporary files, journals in the state directory ...: whatever would annoy
        the administrator if it stayed; but no change markers. What goes away by itself is to be waited for here.
        """
        raise NotImplementedError("override the fixture leftovers")


def ref(hypervisor: Hypervisor, name: str) -> MachineRef:
    """Return a machine as it is listed."""
    found = [machine for machine in hypervisor.machines() if machine.name == name]
    assert len(found) == 1, f"machines() must list {name} once, and lists it {len(found)} times"
    return found[0]


def pattern(number: int, length: int = BLOCK) -> bytes:
    """Return bytes without zeros that differ from number to number."""
    return bytes([1 + number % 255, 1 + number // 255 % 255]) * (length // 2)
