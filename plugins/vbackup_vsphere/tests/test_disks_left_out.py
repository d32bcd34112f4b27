"""Disks that snapshots do not hold: none is left out in silence. And what else belongs to a machine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup.api import Firmware, Unsupported

from .captures import MIB, Site, Sites


@pytest.mark.parametrize(
    ("disk", "reason"),
    [
        ({"mode": "independent_persistent"}, "independent"),
        ({"mode": "independent_nonpersistent"}, "independent"),
        ({"raw": "physicalMode"}, "physical mode"),
        ({"sharing": "sharingMultiWriter"}, "multi-writer"),
    ],
)
def test_a_disk_that_is_left_out_is_told(make_site: Sites, vcsim: Simulator, disk: dict[str, Any], reason: str) -> None:
    vcsim.add_vm("db", disks=[8 * MIB, {"controller": "lsilogic", **disk}])
    site = make_site(name="db", read=["nfc"])
    copy = site.capture()
    assert len(copy.disks) == 1
    assert [note for note in copy.notes if "is not captured" in note and reason in note]
    assert len(copy.description.disks) == 2


@pytest.mark.parametrize("on", [True, False])
def test_a_shared_bus(make_site: Sites, vcsim: Simulator, on: bool) -> None:
    vcsim.add_vm("db", disks=[8 * MIB, {"controller": "lsilogic", "shared": "physicalSharing"}], on=on)
    site = make_site(name="db", read=["datastore"])
    if on:
        with pytest.raises(Unsupported, match="making a snapshot of db"):
            site.capture()
    else:
        assert any("on a shared bus" in note for note in site.capture().notes)
    assert site.snapshots() == []


def test_nothing_is_left_to_capture(make_site: Sites, vcsim: Simulator) -> None:
    vcsim.add_vm("db", disks=[{"mode": "independent_persistent"}])
    site = make_site(name="db")
    with pytest.raises(Unsupported, match="no disk that can be captured"):
        site.capture()
    assert vcsim.calls().get("CreateSnapshot_Task", 0) == 0


def test_a_disk_that_is_excluded(make_site: Sites, vcsim: Simulator) -> None:
    vcsim.add_vm("db", disks=[8 * MIB, 4 * MIB])
    site = make_site(name="db", read=["datastore"])
    first, second = (str(one["key"]) for one in vcsim.disks("db"))
    copy = site.capture(exclude=frozenset({second}))
    assert set(copy.disks) == {first}
    assert not any(second in note for note in copy.notes)


def test_an_encrypted_disk_is_not_read_as_ciphertext(make_site: Sites, vcsim: Simulator) -> None:
    vcsim.add_vm("db", disks=[{"key_id": "key-1"}])
    with pytest.raises(Unsupported, match="encrypted"):
        make_site(name="db", read=["datastore"]).capture()
    assert vcsim.state()["snapshots"] in ({}, 0, [])


def test_firmware_variables(make_site: Sites, vcsim: Simulator) -> None:
    vcsim.add_vm("efi", firmware="efi")
    vcsim.nvram("efi").write_bytes(b"boot order and keys")
    copy = make_site(name="efi", read=["datastore"]).capture()
    assert copy.files == {"nvram": b"boot order and keys"}
    assert copy.description.firmware is Firmware.UEFI


def test_firmware_variables_that_cannot_be_read(make_site: Sites, vcsim: Simulator) -> None:
    vcsim.add_vm("efi", firmware="efi")
    site = make_site(name="efi", read=["nfc"])
    vcsim.http_fault("/folder/", status=403, times=9)
    copy = site.capture()
    assert copy.files == {}
    assert any("firmware variables are not captured" in note for note in copy.notes)


def test_memory(site: Site, vcsim: Simulator) -> None:
    content = bytes(range(256)) * 64
    vcsim.memory(site.name, content)
    captured: list[bytes] = []
    copy = site.capture(memory=True, with_memory=captured.append, quiesce="try")
    assert captured[0].startswith(content)
    assert copy.files["vmsn"]
    assert not copy.quiesced
    assert any("together with the memory" in note for note in copy.notes)
    assert site.snapshots() == []


def test_memory_of_a_machine_that_is_off(site: Site, vcsim: Simulator) -> None:
    vcsim.power(site.name, on=False)
    captured: list[bytes] = []
    copy = site.capture(memory=True, with_memory=captured.append)
    assert captured == []
    assert "vmsn" not in copy.files


def test_memory_that_cannot_be_saved(site: Site, vcsim: Simulator) -> None:
    vcsim.fault("CreateSnapshot_Task", "MemorySnapshotOnIndependentDisk", "not with this device")
    captured: list[bytes] = []
    copy = site.capture(memory=True, with_memory=captured.append)
    assert captured == []
    assert copy.disks == {k: site.content() for k in copy.disks}
    assert any("the memory is not captured" in note for note in copy.notes)
    assert site.snapshots() == []


def test_memory_that_cannot_be_read(make_site: Sites, vcsim: Simulator) -> None:
    site = make_site(read=["nfc"])
    vcsim.http_fault("/folder/", status=404, times=9)
    captured: list[bytes] = []
    copy = site.capture(memory=True, with_memory=captured.append)
    assert captured == []
    assert "vmsn" not in copy.files
    assert any("the memory is not captured" in note for note in copy.notes)


def test_a_template(make_site: Sites, vcsim: Simulator) -> None:
    vcsim.add_vm("golden", template=True, on=False)
    site = make_site(name="golden", read=["nfc", "datastore"])
    assert "golden" in {one.name for one in site.vsphere.machines()}
    vcsim.disk("golden").write_bytes(b"golden" + bytes(8 * MIB - 6))
    copy = site.capture()
    assert copy.disks == {k: site.content() for k in copy.disks}
    assert copy.full_reason == "templates have no changed-block tracking"
    assert vcsim.calls().get("CreateSnapshot_Task", 0) == 0


@pytest.mark.parametrize(("read", "kind"), [("nfc", "VMFS"), ("datastore", "vsan")])
def test_a_template_that_cannot_be_read_as_files(make_site: Sites, vcsim: Simulator, read: str, kind: str) -> None:
    vcsim.add_vm("golden", template=True, on=False)
    vcsim.datastore(kind=kind)
    with pytest.raises(Unsupported, match="is a template") as caught:
        make_site(name="golden", read=[read]).capture()
    assert "clone" in caught.value.hint
