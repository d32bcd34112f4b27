"""The contract of hypervisors, on real QEMU processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest
from machine import Lab, QemuMachine, Restored
from vbackup_qmp.hypervisor import QmpHypervisor

from vbackup.testing.hypervisor_contract import (
    Find,
    HypervisorContract,
    Leftovers,
    LostGuestContract,
    MarkersContract,
    Opens,
    ProcessContract,
    TwoGuestsContract,
)


class TestQmp(HypervisorContract, LostGuestContract, MarkersContract, ProcessContract):
    starts = False
    lists_new_machines = False

    @pytest.fixture
    def hypervisor(self, lab: Lab, guest: QemuMachine) -> QmpHypervisor:
        return lab.opens()

    @pytest.fixture
    def guest(self, lab: Lab) -> QemuMachine:
        return lab.machines["web"]

    @pytest.fixture
    def leftovers(self, lab: Lab) -> Leftovers:
        return lab.leftovers

    @pytest.fixture
    def find(self, lab: Lab) -> Find:
        return lambda name: Restored(lab.directory / "storage" / name)

    @pytest.fixture
    def opens(self, lab: Lab) -> Opens:
        return lab.opens

    @pytest.fixture
    def markers(self, guest: QemuMachine) -> Callable[[], Collection[str]]:
        return guest.bitmaps

    @pytest.fixture
    def lose(self, guest: QemuMachine) -> Callable[[], None]:
        def lose() -> None:
            guest.kill()
            for image in guest.images.values():
                image.path.unlink()

        return lose


class TestTwo(TwoGuestsContract):
    @pytest.fixture
    def second(self, lab: Lab, short: Path) -> Iterator[QemuMachine]:
        return lab.machines["db"]

    @pytest.fixture
    def hypervisor(self, lab: Lab, short: Path) -> QmpHypervisor:
        lab.machines["db"] = QemuMachine.small(short / "db", "db")
        return lab.opens()

    @pytest.fixture
    def guest(self, lab: Lab) -> QemuMachine:
        return lab.machines["web"]
