"""The machines of `vbackup.testing.hypervisors`: in memory, written through by tests, also while they are captured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vbackup.testing.hypervisors import FakeHypervisor

GRAIN = 64 << 10
"""Bytes that one bit of change tracking stands for, as in qcow2."""


class When(StrEnum):
    """When a machine does what a test has told it to; see `FakeGuest.on`."""

    BEFORE = "before"
    """Before a capture waits for its moment: it has what is written now."""
    OPEN = "open"
    """The moment of a capture is over: what is written from now on, the next one has."""
    READ = "read"
    """Before each block that is read of an open capture, by whichever thread reads."""
    CLOSED = "closed"
    """A capture has ended, well or not; it is not committed yet."""


@dataclass
class FakeDisk:
    """A disk in memory. Write through `write`: then changes are tracked for every marker that exists."""

    data: bytearray
    dirty: dict[str, set[int]] = field(default_factory=dict)
    lost_reason: str | None = None
    """Set it, and tracking is lost for this reason."""

    def write(self, offset: int, data: bytes) -> None:
        """Write as the guest."""
        self.data[offset : offset + len(data)] = data
        self._changed(range(offset // GRAIN, (offset + len(data) + GRAIN - 1) // GRAIN))

    def resize(self, size: int) -> None:
        """Grow with zeros or cut off; from the smaller end on nothing is known any more."""
        end = min(size, len(self.data))
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))
        self._changed(range(end // GRAIN, -(-size // GRAIN)))

    def _changed(self, numbers: range) -> None:
        for grains in list(self.dirty.values()):  # a capture in another thread may begin to track meanwhile
            grains.update(numbers)


@dataclass
class FakeMachine:
    """A machine: disks by key, and files that belong to it."""

    disks: dict[str, FakeDisk]
    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    memory: FakeDisk | None = None
    """That of a running machine."""
    is_up: bool = True
    """Whether its agent answers."""
    folder: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    running: bool = True
    freezes: bool = True
    """Whether its file systems can be frozen."""
    script: dict[When, list[Callable[[], None]]] = field(default_factory=dict)
    """What it does on its own; see `FakeGuest.on`."""

    def happens(self, when: When) -> None:
        """Do what the script says for now."""
        for action in list(self.script.get(when, ())):
            action()


class FakeGuest:
    """A machine of a `FakeHypervisor` by its name, which has a script; a `hypervisor_contract.GuestUnderTest`.

    ::

        guest = FakeGuest.make(hypervisor, "web", vda=bytes(1 << 20))
        guest.on(When.READ, lambda: guest.write("vda", 0, b"written while it is backed up"))
    """

    def __init__(self, hypervisor: FakeHypervisor, name: str) -> None:
        self._hypervisor = hypervisor
        self.name = name
        self.disks: Sequence[str] = list(self.machine.disks)
        """The keys of its disks."""

    @classmethod
    def make(cls, hypervisor: FakeHypervisor, name: str, **disks: bytes) -> FakeGuest:
        """Make a running machine with these disks, by key."""
        hypervisor.guests[name] = FakeMachine({key: FakeDisk(bytearray(data)) for key, data in disks.items()})
        return cls(hypervisor, name)

    @property
    def machine(self) -> FakeMachine:
        """The machine of that name as it is now."""
        return self._hypervisor.guests[self.name]

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """Write to a disk, at any time."""
        self.machine.disks[disk].write(offset, data)

    def zero(self, disk: str, offset: int, length: int) -> None:
        """Write zeros."""
        self.write(disk, offset, bytes(length))

    def read(self, disk: str) -> bytes:
        """Return what a disk holds now."""
        return bytes(self.machine.disks[disk].data)

    def stop(self) -> None:
        """Switch it off."""
        self.machine.running = False

    def start(self) -> None:
        """Switch it on."""
        self.machine.running = True

    def on(self, when: When, action: Callable[[], None], *, times: int | None = None) -> None:
        """Have it do something each time that ``when`` comes, or so many ``times`` at most. Scripts add up."""
        script = self.machine.script.setdefault(when, [])
        if times is None:
            script.append(action)
            return
        left = iter(range(times))

        def counted() -> None:
            if next(left, None) is not None:
                action()

        script.append(counted)
