"""Reading a frozen disk over HTTPS from its datastore, against the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vcsim.simulator import Simulator
from vbackup.api import CaptureLost, Range, Unavailable, Unsupported, split
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.readers import datastore
from vbackup_vsphere.readers.base import Frozen
from vbackup_vsphere.readers.datastore import Datastore
from vbackup_vsphere.readers.descriptor import MAX_DESCRIPTOR, extent_file
from vbackup_vsphere.readers.files import split_path
from vbackup_vsphere.session import Session
from vbackup_vsphere.web import Web

from .frozen import MIB, Machine, content, fill, read, read_all, session_with

SIZE = 24 * MIB
FLAT = "/folder/DC0_H0_VM0/disk1-flat.vmdk"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as one:
        yield one


@pytest.fixture(scope="module")
def session(simulator: Simulator) -> Iterator[Session]:
    with session_with(simulator) as one:
        yield one


@pytest.fixture(scope="module")
def machine(simulator: Simulator, session: Session) -> Machine:
    machine = Machine.find(simulator, session)
    machine.resize(SIZE)
    fill(machine, SIZE)
    return machine


@pytest.fixture(scope="module")
def bytes_now(machine: Machine) -> bytes:
    return content(machine.simulator.disk(machine.name))


@pytest.fixture(scope="module")
def frozen(machine: Machine, bytes_now: bytes) -> Iterator[tuple[Frozen, VmDisk]]:
    with machine.frozen() as (frozen, disks):
        machine.write(0, b"written after the snapshot")
        yield frozen, disks[0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datastore, "PAUSE", 0.01)


def test_the_whole_disk_is_read_as_it_was_frozen(frozen: tuple[Frozen, VmDisk], bytes_now: bytes) -> None:
    assert Datastore().why_not(*frozen) is None
    with Datastore().open(*frozen) as reader:
        assert not reader.is_sequential
        assert reader.extents() is None
        assert read_all(reader, SIZE, 4 * MIB) == bytes_now


def test_ranges_come_in_the_order_of_asking(frozen: tuple[Frozen, VmDisk], bytes_now: bytes) -> None:
    apart = [Range(SIZE - 512, 512), Range(0, 4096), Range(9 * MIB, 4 * MIB), Range(MIB + 512, 1024)]
    neighbours = list(split([Range(MIB, 9 * MIB)], 64 << 10))
    with Datastore().open(*frozen) as reader:
        for ranges in (apart, neighbours, []):
            assert read(reader, ranges) == [bytes_now[r.offset : r.offset + r.length] for r in ranges]


def test_only_so_much_is_read_ahead(frozen: tuple[Frozen, VmDisk]) -> None:
    asked = 0

    def ranges() -> Iterator[Range]:
        nonlocal asked
        for offset in range(0, SIZE, MIB):
            asked += 1
            yield Range(offset, 4096)

    with Datastore().open(*frozen) as reader:
        for got, _ in enumerate(reader.read(ranges())):
            assert asked - got <= 8


def test_reading_may_be_left_early(frozen: tuple[Frozen, VmDisk], bytes_now: bytes) -> None:
    with Datastore().open(*frozen) as reader:
        blocks = reader.read(split([Range(0, SIZE)], MIB))
        assert bytes(next(iter(blocks)).data) == bytes_now[:MIB]
        del blocks
        assert read(reader, [Range(MIB, 512)]) == [bytes_now[MIB : MIB + 512]]


def test_a_connection_that_is_cut_is_resumed(
    simulator: Simulator, frozen: tuple[Frozen, VmDisk], bytes_now: bytes
) -> None:
    with Datastore().open(*frozen) as reader:
        simulator.http_fault(FLAT, cut_at=1_000_001, method="GET", times=12)
        assert read_all(reader, SIZE, 4 * MIB) == bytes_now


def test_a_host_that_is_busy_is_asked_again(
    simulator: Simulator, frozen: tuple[Frozen, VmDisk], bytes_now: bytes
) -> None:
    with Datastore().open(*frozen) as reader:
        simulator.http_fault(FLAT, status=503, method="GET", times=4)
        assert read_all(reader, SIZE, 4 * MIB) == bytes_now


def test_a_host_that_stays_busy_is_given_up(frozen: tuple[Frozen, VmDisk], machine: Machine) -> None:
    with Datastore().open(*frozen) as reader:
        machine.simulator.http_fault(FLAT, status=503, method="GET", times=datastore.ATTEMPTS)
        with pytest.raises(Unavailable, match="503") as caught:
            read(reader, [Range(0, 512)])
        assert caught.value.transient


def test_a_session_that_expires_is_made_anew(
    simulator: Simulator, frozen: tuple[Frozen, VmDisk], bytes_now: bytes
) -> None:
    with Datastore().open(*frozen) as reader:
        simulator.expire_sessions()
        assert read_all(reader, SIZE) == bytes_now


def test_a_session_that_another_thread_has_made_anew_meanwhile(
    simulator: Simulator, frozen: tuple[Frozen, VmDisk], bytes_now: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is good, and says nothing of the one that was sent."""
    session, send, refused = frozen[0].session, Web.send, []

    def overtaken(web: Web, *request: Any) -> Any:
        connection, response = send(web, *request)
        if response.status == 401 and not refused:
            refused.append(response)
            session.now()
        return connection, response

    with Datastore().open(*frozen) as reader:
        simulator.expire_sessions()
        monkeypatch.setattr(Web, "send", overtaken)
        assert read_all(reader, SIZE) == bytes_now
    assert refused


def test_a_file_that_vanishes_ends_the_capture(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    with Datastore().open(*frozen) as reader:
        simulator.http_fault(FLAT, status=404, method="GET")
        with pytest.raises(CaptureLost, match="is gone"):
            read(reader, [Range(0, 512)])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"is_encrypted": True}, "encrypted"),
        ({"has_parent": True}, "chain of snapshots"),
        ({"datastore_type": "vsan"}, "vsan"),
        ({"datastore_type": "VVOL"}, "VVOL"),
    ],
)
def test_disks_that_no_flat_file_holds_are_left_to_others(
    frozen: tuple[Frozen, VmDisk], change: dict[str, bool | str], says: str
) -> None:
    reason = Datastore().why_not(frozen[0], replace(frozen[1], **change))  # type: ignore[arg-type]
    assert reason is not None
    assert says in reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": SIZE + 512}, "the disk has"),
        ({"file": "[LocalDS_0] DC0_H0_VM0/other.vmdk"}, "does not give its file"),
        ({"file": "[LocalDS_0] DC0_H0_VM0/disk1-flat.vmdk"}, "no descriptor"),
        ({"file": "disk1.vmdk"}, "no path of a datastore"),
    ],
)
def test_what_turns_out_to_be_no_flat_file_is_left_to_others(
    frozen: tuple[Frozen, VmDisk], change: dict[str, int | str], says: str
) -> None:
    with (
        pytest.raises(Unsupported, match=says),
        Datastore().open(frozen[0], replace(frozen[1], **change)),  # type: ignore[arg-type]
    ):
        pass


def test_an_answer_that_ends_early_is_resumed(
    simulator: Simulator, frozen: tuple[Frozen, VmDisk], bytes_now: bytes
) -> None:
    with Datastore().open(*frozen) as reader:
        simulator.http_fault(FLAT, truncate_at=1000, method="GET", times=3)
        assert read_all(reader, SIZE, 4 * MIB) == bytes_now


def test_a_host_that_ignores_ranges_is_refused(simulator: Simulator, frozen: tuple[Frozen, VmDisk]) -> None:
    with Datastore().open(*frozen) as reader:
        simulator.http_fault(FLAT, no_range=True, method="GET")
        with pytest.raises(Unavailable, match="answers 200 to a request for a part") as caught:
            read(reader, [Range(512, 512)])
        assert not caught.value.transient


@pytest.mark.parametrize(
    "told",
    ["", f"bytes 0-510/{SIZE}", f"bytes 512-1023/{SIZE}", f"bytes 0-511/{SIZE + 512}", "bytes 0-511/*"],
)
def test_an_answer_to_another_question_is_refused(
    simulator: Simulator, frozen: tuple[Frozen, VmDisk], told: str
) -> None:
    with Datastore().open(*frozen) as reader:
        simulator.http_fault(FLAT, headers={"Content-Range": told}, method="GET")
        with pytest.raises(CaptureLost, match="asked for bytes 0-511"):
            read(reader, [Range(0, 512)])


DESCRIPTOR = b"""# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=ffffffff
createType="vmfs"

# Extent description
RW 2048 VMFS "web 1-flat.vmdk"

# Change Tracking File
changeTrackPath="web 1-ctk.vmdk"

ddb.adapterType = "lsilogic"
ddb.thinProvisioned = "1"
"""
EXTENT = b'RW 2048 VMFS "web 1-flat.vmdk"'


@pytest.mark.parametrize("extent", [EXTENT, EXTENT.replace(b"VMFS", b"FLAT") + b" 0"])
def test_the_descriptor_names_the_file(extent: bytes) -> None:
    assert extent_file(DESCRIPTOR.replace(EXTENT, extent), MIB) == "web 1-flat.vmdk"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"vmfs"', b'"vmfsSparse"', "vmfsSparse"),
        (b'"vmfs"', b'"vmfsRawDeviceMap"', "vmfsRawDeviceMap"),
        (b"parentCID=ffffffff", b"parentCID=12345678", "a parent"),
        (b"encoding", b'parentFileNameHint="x.vmdk"\nencoding', "a parent"),
        (b"encoding", b'encryptionKeys="vmware:key"\nencoding', "encrypted"),
        (EXTENT, b"", "0 files"),
        (EXTENT, EXTENT + b"\n" + EXTENT, "2 files"),
        (b"RW 2048", b"RW 4096", "tells of 2097152 bytes"),
        (b"RW 2048", b"RDONLY 2048", "RDONLY"),
        (b"VMFS", b"SESPARSE", "SESPARSE"),
        (EXTENT, EXTENT + b" 128", "not flat"),
        (b"web 1-flat.vmdk", b"../secrets/x-flat.vmdk", "no file beside it"),
        (b"web 1-flat.vmdk", b"/vmfs/volumes/x", "no file beside it"),
        (b"web 1-flat.vmdk", b"..", "no file beside it"),
        (b'"web 1-flat.vmdk"', b"", "no file beside it"),
        (b"web 1", b"web\x1b1", "no file beside it"),
        (b"# Disk", b"\0", "no descriptor"),
        (b"# Disk", b"\xff", "no text"),
        (b"# Disk", b"#" * MAX_DESCRIPTOR, "no descriptor"),
        (b"createType", b"type", "no descriptor"),
    ],
)
def test_descriptors_of_other_disks_are_refused(old: bytes, new: bytes, says: str) -> None:
    with pytest.raises(Unsupported, match=says):
        extent_file(DESCRIPTOR.replace(old, new), MIB)


@given(st.binary(max_size=300), st.integers(0, len(DESCRIPTOR)))
def test_a_descriptor_of_anything_is_refused_or_names_a_file_beside_it(noise: bytes, at: int) -> None:
    try:
        name = extent_file(DESCRIPTOR[:at] + noise + DESCRIPTOR[at:], MIB)
    except Unsupported:
        return
    assert "/" not in name
    assert name.isprintable()


def test_names_are_quoted_in_addresses() -> None:
    file = split_path("[my ds&1] a b/c#d?.vmdk", "Folder 1/DC&2")
    assert file.url() == "/folder/a%20b/c%23d%3F.vmdk?dcPath=Folder%201%2FDC%262&dsName=my%20ds%261"
    assert file.beside("x.vmdk").path == "a b/x.vmdk"


@pytest.mark.parametrize("path", ["", "[ds]", "[ds] ", "[ds] /x", "[ds] a/../b", "[] x", "x/y.vmdk"])
def test_paths_of_no_datastore_are_refused(path: str) -> None:
    with pytest.raises(Unsupported):
        split_path(path, "DC0")
