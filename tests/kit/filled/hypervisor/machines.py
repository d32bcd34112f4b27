"""Machines of the kit's hypervisor."""

from vbackup.testing.guests import FakeGuest as Machine
from vbackup.testing.hypervisor_contract import NEW

_MIB = 1 << 20


def made(hypervisor):
    """Make a machine with two disks, of which nobody can freeze the file systems."""
    machine = Machine.make(hypervisor, "web", vda=b"boot" * (_MIB // 4), vdb=bytes(_MIB) + b"data" * (_MIB // 4))
    machine.machine.freezes = False
    return machine


def found(hypervisor, name):
    """Return a machine."""
    return Machine(hypervisor, name)


def remove_restored(hypervisor):
    """Forget it."""
    hypervisor.guests.pop(NEW, None)


def leftovers(hypervisor):
    """Count what is open."""
    return ["capture"] * hypervisor.open_captures + ["restore"] * hypervisor.open_restores
