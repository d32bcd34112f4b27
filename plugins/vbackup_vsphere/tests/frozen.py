"""What the tests of the readers share: a session with the simulator, and snapshots of its machines."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import Range, split
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.readers.base import DiskReader, Frozen
from vbackup_vsphere.session import Session

MIB = 1 << 20
MACHINE = "DC0_H0_VM0"


@contextmanager
def session_with(simulator: Simulator, **options: Any) -> Iterator[Session]:
    """Give a session of the simulator."""
    with closing(Session(VsphereOptions.model_validate(simulator.options(**options)), "vc")) as session:
        yield session


@dataclass
class Machine:
    """A machine of the simulator whose disks are to be read."""

    simulator: Simulator
    session: Session
    vm: Any
    name: str

    @classmethod
    def find(cls, simulator: Simulator, session: Session, name: str = MACHINE) -> Machine:
        found = {facts["name"]: ref for ref, facts in session.list(vim.VirtualMachine, "name")}
        return cls(simulator, session, found[name], name)

    def write(self, offset: int, data: bytes, key: int = 0) -> None:
        self.simulator.guest_write(self.name, key, offset, data)

    def resize(self, size: int) -> None:
        """Make its first disk larger."""
        self.simulator.resize_disk(self.name, 0, size)

    @contextmanager
    def frozen(self) -> Iterator[tuple[Frozen, list[VmDisk]]]:
        """Freeze its disks in a snapshot."""
        self._wait(self.vm.CreateSnapshot_Task("vbackup-test", "", False, False))
        snapshot = self.session.get(self.vm, "snapshot.currentSnapshot")["snapshot.currentSnapshot"]
        devices = self.session.get(snapshot, "config.hardware.device")["config.hardware.device"]
        frozen = Frozen(self.session, self.name, self.vm._GetMoId(), snapshot._GetMoId(), "DC0")
        try:
            yield frozen, [_disk(d) for d in devices if isinstance(d, vim.vm.device.VirtualDisk)]
        finally:
            self._wait(snapshot.RemoveSnapshot_Task(False, True))

    def _wait(self, task: Any) -> None:
        self.session.wait(task, "preparing a test")


def _disk(device: Any) -> VmDisk:
    backing = device.backing
    return VmDisk(
        device=device.key,
        label=device.deviceInfo.label,
        size=device.capacityInBytes,
        file=backing.fileName,
        uuid=backing.uuid or "",
        change_id=None,
        has_parent=backing.parent is not None,
        datastore=backing.fileName[1:].partition("]")[0],
        datastore_type="VMFS",
        is_thin=True,
        is_encrypted=False,
        bus="scsi",
        controller="pvscsi",
        left_out=None,
    )


def fill(machine: Machine, size: int, key: int = 0, seed: int = 1) -> None:
    """Let the guest write here and there, its first and last sector included."""
    rng = random.Random(seed)
    for _ in range(8):
        machine.write(rng.randrange(size // 4096 - 64) * 4096, rng.randbytes(rng.choice((512, 4096, 150_000))), key)
    machine.write(0, rng.randbytes(512), key)
    machine.write(size - 512, rng.randbytes(512), key)


def content(path: Path) -> bytes:
    """Return a disk's bytes."""
    return path.read_bytes()


def read(reader: DiskReader, ranges: Sequence[Range]) -> list[bytes]:
    """Read ranges, and see that the blocks are theirs."""
    blocks = list(reader.read(iter(ranges)))
    assert [(b.offset, len(b.data)) for b in blocks] == [(r.offset, r.length) for r in ranges]
    return [bytes(b.data) for b in blocks]


def read_all(reader: DiskReader, size: int, step: int = MIB) -> bytes:
    """Read a whole disk."""
    return b"".join(read(reader, list(split([Range(0, size)], step))))
