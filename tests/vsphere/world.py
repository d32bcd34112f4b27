"""A machine in the simulated vCenter, what happens to it, and what each of its disks must hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from tests.vcsim.simulator import Simulator
from vbackup.api import HypervisorContext
from vbackup_vsphere.hypervisor import Vsphere

SIZE = 8 << 20
GRAIN = 512


class World:
    """One machine of two disks and more; ``way`` is how its disks are read."""

    def __init__(self, simulator: Simulator, way: str, tmp_path: Path, rng: random.Random) -> None:
        self.simulator, self.rng = simulator, rng
        self.name = "machine"
        more = {"vddk": simulator.vddk()} if way == "vddk" else {}
        ways = ["datastore", "nfc"] if way == "datastore" else [way]  # while there are others' snapshots it cannot
        options = simulator.options(read=ways, tracking="enable", **more)
        simulator.tracking(coarse=rng.choice([0, 1 << 18]), late=rng.random() < 0.5)
        (tmp_path / "state").mkdir()
        self.hypervisor = Vsphere(Vsphere.options.model_validate(options), HypervisorContext("vc", tmp_path / "state"))
        simulator.add_vm(self.name, disks=[SIZE, SIZE // 2])
        self.model = {disk["key"]: bytearray(disk["size"]) for disk in simulator.disks(self.name)}
        self._mine: list[str] = []
        self._on = True
        self.steps: list[tuple[Callable[[], None], int]] = [
            (self.write, 30), (self.zero, 8), (self.grow, 1), (self.add, 1), (self.remove, 1), (self.reset, 1),
            (self.switch, 1), (self.expire, 1), (self.rename, 1), (self.snapshot, 1), (self.drop, 2),
        ]  # fmt: skip

    def write(self) -> None:
        self._put(self.rng.randbytes(self.rng.choice([1, 8, 300]) * GRAIN))

    def zero(self) -> None:
        self._put(bytes(self.rng.choice([8, 128, 1000]) * GRAIN))

    def _put(self, data: bytes) -> None:
        key = self.rng.choice(list(self.model))
        model = self.model[key]
        offset = self.rng.randrange(len(model) // GRAIN) * GRAIN
        data = data[: len(model) - offset]
        self.simulator.guest_write(self.name, key, offset, data)
        model[offset : offset + len(data)] = data

    def grow(self) -> None:
        if self._mine:  # vSphere refuses it while there are snapshots
            return
        key = self.rng.choice(list(self.model))
        more = self.rng.choice([1 << 10, 1 << 16, 1 << 20])
        if len(self.model[key]) + more <= 2 * SIZE:
            self.model[key].extend(bytes(more))
            self.simulator.resize_disk(self.name, key, len(self.model[key]))

    def add(self) -> None:
        if len(self.model) < 4 and not self._mine:
            self.model[self.simulator.add_disk(self.name, 1 << 20)] = bytearray(1 << 20)

    def remove(self) -> None:
        if len(self.model) > 2 and not self._mine:
            key = max(self.model)
            del self.model[key]
            self.simulator.remove_disk(self.name, key)

    def reset(self) -> None:
        self.simulator.reset_cbt(self.name)

    def switch(self) -> None:
        self._on = not self._on
        self.simulator.power(self.name, on=self._on)

    def expire(self) -> None:
        self.simulator.expire_sessions()

    def rename(self) -> None:
        name = f"machine-{self.rng.randrange(1000)}"
        self.simulator.rename(self.name, name)
        self.name = name

    def snapshot(self) -> None:
        """The user makes one of his own: it must stay."""
        if not self._mine:
            self._mine.append(self.simulator.snapshot(self.name, "before the upgrade"))

    def drop(self) -> None:
        while self._mine:
            self.simulator.remove_snapshot(self.name, self._mine.pop())

    @property
    def strangers(self) -> list[str]:
        """The snapshots that are not there but should be, and those that are but should not."""
        there = [one["id"] for one in self.simulator.state()["snapshots"].get(self.name, [])]
        return sorted(set(there) ^ set(self._mine))

    def moment(self) -> dict[str, str]:
        """Hash what each disk must hold now."""
        return {str(key): blake3(data).hexdigest() for key, data in self.model.items()}
