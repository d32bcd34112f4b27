"""What the tests of restores share: a session with the simulator, machines, and bytes to put on their disks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import (
    DiskDescription,
    HypervisorContext,
    MachineDescription,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    Run,
)
from vbackup_vsphere import restore_journal
from vbackup_vsphere.describe import describe
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.restore import restore
from vbackup_vsphere.session import Session

MIB = 1 << 20
WHERE = {"pool": "/DC0/host/DC0_C0", "datastore": "LocalDS_0"}
LIBVIRT_ID = "4f3c2b1a-0d9e-4c8b-a7f6-5e4d3c2b1a09"


Step = Callable[[Restoration], Any]


class VCenter:
    """A simulator and our session with it."""

    def __init__(self, simulator: Simulator, state: Path, **options: Any) -> None:
        self.simulator = simulator
        self.context = HypervisorContext("vc", state)
        self.session = Session(VsphereOptions.model_validate(simulator.options(**(WHERE | options))), "vc")

    @property
    def names(self) -> list[str]:
        """All machines, sorted."""
        return sorted(row["name"] for _, row in self.session.list(vim.VirtualMachine, "name"))

    def machine(self, name: str) -> Any:
        """Return the object of a machine."""
        return next(ref for ref, row in self.session.list(vim.VirtualMachine, "name") if row["name"] == name)

    def describe(self, name: str) -> MachineDescription:
        """Describe a machine."""
        return describe(self.session, self.machine(name))

    def switch(self, name: str, *, on: bool) -> None:
        """Switch a machine on or off."""
        vm = self.machine(name)
        work = (lambda: vm.PowerOnVM_Task(None)) if on else vm.PowerOffVM_Task
        self.session.wait(self.session.call("switching", work), "switching")

    def reconfigure(self, name: str, /, **changes: Any) -> None:
        """Change a machine."""
        vm = self.machine(name)
        task = self.session.call("changing", lambda: vm.ReconfigVM_Task(vim.vm.ConfigSpec(**changes)))
        self.session.wait(task, "changing")

    @contextmanager
    def restoring(
        self, machine: MachineDescription, files: Mapping[str, bytes] | None = None, **request: Any
    ) -> Iterator[Restoration]:
        """Restore all disks of a machine."""
        with restore(
            self.session, self.context, machine, wanted(machine), files or {}, RestoreRequest(**request)
        ) as opened:
            yield opened

    def attempt(self, machine: MachineDescription, *steps: Step, **request: Any) -> None:
        """Restore a machine with what the steps do."""
        with self.restoring(machine, **request) as opened:
            for step in steps:
                step(opened)

    def restore(
        self, machine: MachineDescription, data: Mapping[str, bytes], files: Mapping[str, bytes] | None = None,
        **request: Any,
    ) -> tuple[str, list[str]]:  # fmt: skip
        """Restore a machine with these disks; return what there is and the notes."""
        with self.restoring(machine, files, **request) as opened:
            for key, disk in opened.disks.items():
                disk.write(runs(data[key]))
            said = opened.finish()
            return said, list(opened.notes)

    def bytes_of(self, name: str, key: int = 0) -> bytes:
        """Return what a guest would see."""
        return self.simulator.disk(name, key).read_bytes()

    def journals(self) -> list[Path]:
        """Return the journals that are left."""
        return list(self.context.state_dir.glob("restore-*.json"))

    def sweep(self) -> list[str]:
        """Undo what dead restores left."""
        return restore_journal.sweep(self.session, self.context)


def wanted(machine: MachineDescription) -> Sequence[RestoreDisk]:
    """Return all disks of a machine as the engine asks for them."""
    return [RestoreDisk(disk.key, disk.size, disk.format) for disk in machine.disks]


def runs(data: bytes) -> Iterator[Run]:
    """Yield a disk's bytes as the engine does: zeros are told."""
    step = 64 << 10
    for offset in range(0, len(data), step):
        piece = data[offset : offset + step]
        yield Run(offset, len(piece), piece if any(piece) else None)


def write(data: Mapping[str, bytes], *keys: str) -> Step:
    """Return the step that writes these disks, or all."""

    def step(opened: Restoration) -> None:
        for key in keys or opened.disks:
            opened.disks[key].write(runs(data[key]))

    return step


def finish(opened: Restoration) -> str:
    """Finish, as a step."""
    return opened.finish()


def contents(machine: MachineDescription, seed: int = 1) -> dict[str, bytes]:
    """Return bytes for each disk: data, holes and more data, of another kind on each."""
    chance = random.Random(seed)
    found = {}
    for disk in machine.disks:
        third = disk.size // 3
        found[disk.key] = chance.randbytes(third) + bytes(third) + chance.randbytes(disk.size - 2 * third)
    return found


def libvirt_machine(**changes: Any) -> MachineDescription:
    """Return a machine as the libvirt plugin describes it."""
    usual: dict[str, Any] = {
        "name": "web",
        "id": LIBVIRT_ID,
        "cpus": 4,
        "cores": 2,
        "memory": 512 * MIB,
        "guest": "linux",
        "disks": (
            DiskDescription(key="vda", size=3 * MIB, format="qcow2", bus="virtio"),
            DiskDescription(key="vdb", size=2 * MIB, format="raw", bus="virtio", boot_order=1),
        ),
        "nics": ({"mac": "52:54:00:12:34:56", "model": "virtio", "network": "VM Network"},),
        "native": {"kind": "libvirt-domain-xml", "text": "<domain/>"},
    }
    return MachineDescription.model_validate(usual | changes)
