"""The contract of hypervisors: the fake and the image plugin keep it, and each way of breaking it is found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.kit.broken_hypervisors import BROKEN, CHOSEN, UNBROKEN
from tests.kit.fakes import FakeContract, noise
from tests.kit.images import ImageContract
from vbackup.api import Busy, CaptureRequest
from vbackup.testing.guests import FakeGuest
from vbackup.testing.hypervisor_contract import Find, HypervisorContract, Leftovers
from vbackup.testing.hypervisors import FakeCapture, FakeHypervisor

MIB = 1 << 20
HERE = Path(__file__).parent


class TestFake(FakeContract):
    """Machines in memory that run, and write while they are captured."""


class Untracked(FakeHypervisor):
    """Knows nothing of what changed, and freezes nothing."""

    @contextmanager
    def capture(self, machine: str, request: CaptureRequest) -> Iterator[FakeCapture]:
        for guest in self.guests.values():
            guest.freezes = False
            for disk in guest.disks.values():
                disk.lost_reason = "nothing is tracked here"
        with super().capture(machine, request) as capture:
            capture.marker = None
            yield capture


class Locked(FakeGuest):
    """Refuses writes while it is captured."""

    def write(self, disk: str, offset: int, data: bytes) -> None:
        if self._hypervisor.open_captures:
            raise Busy(f"{self.name} is captured")
        super().write(disk, offset, data)


class TestLeast(HypervisorContract):
    """A hypervisor that can as little as one may."""

    tracks = False
    writes_while_captured = False

    @pytest.fixture
    def hypervisor(self) -> Untracked:
        return Untracked()

    @pytest.fixture
    def guest(self, hypervisor: Untracked) -> Locked:
        guest = Locked.make(hypervisor, "web", vda=noise(MIB, 1))
        guest.machine.memory = None
        return guest

    @pytest.fixture
    def leftovers(self, hypervisor: Untracked) -> Leftovers:
        return lambda: ["capture"] * hypervisor.open_captures

    @pytest.fixture
    def find(self, hypervisor: Untracked) -> Find:
        return partial(FakeGuest, hypervisor)


class TestImages(ImageContract):
    """Files that QEMU's locks keep as they are."""


# -- what is broken is found -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """How the test that is meant for each broken hypervisor failed, and what one that is not broken makes of them."""
    report = tmp_path_factory.mktemp("broken") / "report.xml"
    module = HERE / "broken_hypervisors.py"
    chosen = [f"{module}::{each}" for each in sorted(CHOSEN)]
    options = ["-q", "--tb=line", "-p", "no:cacheprovider", "--override-ini", "addopts=--import-mode=importlib"]
    argv = [sys.executable, "-m", "pytest", *options, "--junitxml", report, *chosen]
    done = subprocess.run(argv, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, dict[str, str]] = {}
    for case in ET.parse(report).iter("testcase"):
        verdict = found.setdefault(case.attrib["classname"].rpartition(".Test")[2], {})
        for failure in (*case.iter("failure"), *case.iter("error")):
            verdict[case.attrib["name"]] = f"{failure.tag}: {failure.attrib['message']}"
    return found


def test_what_is_not_broken_passes(verdicts: dict[str, dict[str, str]]) -> None:
    assert verdicts["Unbroken"] == verdicts["UnbrokenImages"] == {}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_is_broken_is_found(verdicts: dict[str, dict[str, str]], name: str) -> None:
    assert verdicts[name], f"{BROKEN[name]} of the contract passes"
    assert all(verdict.startswith("failure: ") for verdict in verdicts[name].values()), verdicts[name]


def test_no_test_of_the_contract_is_idle() -> None:
    """Each finds something that is broken."""
    contract = {name for base in UNBROKEN for name in dir(base) if name.startswith("test_")}
    assert contract == set(BROKEN.values())
