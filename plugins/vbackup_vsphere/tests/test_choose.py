"""Which way a disk is read, and what the user is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import Unavailable, Unsupported
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.readers import choose
from vbackup_vsphere.readers.base import Frozen, Way
from vbackup_vsphere.readers.choose import make_ways, open_reader
from vbackup_vsphere.readers.datastore import DatastoreReader
from vbackup_vsphere.readers.nfc import NfcReader

from .frozen import Machine, content, read_all, session_with


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as one:
        yield one


@pytest.fixture(scope="module")
def machine(simulator: Simulator) -> Iterator[Machine]:
    with session_with(simulator) as session:
        machine = Machine.find(simulator, session)
        machine.write(4096, b"something")
        yield machine


@pytest.fixture(scope="module")
def frozen(machine: Machine) -> Iterator[tuple[Frozen, VmDisk]]:
    with machine.frozen() as (frozen, disks):
        yield frozen, disks[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "PAUSE", 0.01)


def ways(simulator: Simulator, **options: Any) -> list[Way]:
    return list(make_ways(VsphereOptions.model_validate(simulator.options(**options))))


def test_the_order_is_the_users(simulator: Simulator) -> None:
    assert [way.name for way in ways(simulator)] == ["vddk", "datastore", "nfc"]
    assert [way.name for way in ways(simulator, read=["nfc", "datastore", "nfc"])] == ["nfc", "datastore"]


def test_the_first_that_can_is_taken_without_a_word(
    simulator: Simulator, machine: Machine, frozen: tuple[Frozen, VmDisk]
) -> None:
    with open_reader(ways(simulator), *frozen) as (reader, name, notes):
        assert (name, notes) == ("datastore", [])
        assert isinstance(reader, DatastoreReader)
        assert read_all(reader, frozen[1].size) == content(simulator.disk(machine.name))


def test_a_way_that_cannot_is_told(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    disk = replace(frozen[1], datastore_type="vsan")
    with open_reader(ways(simulator), frozen[0], disk) as (reader, name, notes):
        assert name == "nfc"
        assert isinstance(reader, NfcReader)
        reasons = "not vddk (no VDDK is configured), not datastore (its datastore is vsan, which has no flat files)"
        assert notes == [f"disk {disk.key} is read by nfc, {reasons}"]


def test_a_configured_vddk_that_fails_is_told(
    simulator: Simulator, frozen: tuple[Frozen, VmDisk], tmp_path: Path
) -> None:
    with open_reader(ways(simulator, vddk={"libdir": str(tmp_path)}), *frozen) as (_, name, notes):
        assert name == "datastore"
        assert notes == [
            f"disk {frozen[1].key} is read by datastore, not vddk (there is no lib64/libvixDiskLib.so* in {tmp_path})"
        ]


def test_a_way_that_turns_out_not_to_work_is_told(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    simulator.http_fault("/folder/", status=404, times=1)
    with open_reader(ways(simulator), *frozen) as (_, name, notes):
        assert name == "nfc"
        assert "the host does not give its file" in notes[0]


def test_a_host_that_is_busy_for_a_moment_changes_nothing(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    simulator.http_fault("/folder/", status=503, times=choose.ATTEMPTS - 1)
    with open_reader(ways(simulator), *frozen) as (_, name, notes):
        assert (name, notes) == ("datastore", [])


def test_without_a_way_all_reasons_are_told(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    disk = replace(frozen[1], is_encrypted=True)
    with (
        pytest.raises(
            Unsupported, match=r"vddk \(no VDDK.*\), datastore \(it is encr.*\), nfc \(it is encr.*\)"
        ) as caught,
        open_reader(ways(simulator), frozen[0], disk),
    ):
        pass
    assert disk.key in caught.value.message
    assert caught.value.hint


def test_what_may_work_later_is_no_verdict(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    simulator.http_fault("/folder/", status=503, times=choose.ATTEMPTS)
    with pytest.raises(Unavailable) as caught, open_reader(ways(simulator, read=["datastore"]), *frozen):
        pass
    assert caught.value.transient


def test_missing_privileges_lead_to_the_next_way(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    simulator.http_fault("/folder/", status=403, times=1)
    with open_reader(ways(simulator), *frozen) as (_, name, notes):
        assert name == "nfc"
        assert "403" in notes[0]
