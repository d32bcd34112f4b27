"""The simulated vCenter does what a backup and a restore need of a real one."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pyVmomi import vim

from tests.vcsim.client import Client, folder_url
from tests.vcsim.simulator import Simulator

MIB = 1 << 20


def fill(simulator: Simulator, vm: str, key: int, seed: int, places: int = 20) -> None:
    numbers = random.Random(seed)
    size = next(disk["size"] for disk in simulator.disks(vm) if key in {0, disk["key"]})
    for _ in range(places):
        simulator.guest_write(vm, key, numbers.randrange(0, size - 8192, 512), numbers.randbytes(8192))


def read_changes(client: Client, vm: Any, snapshot: Any, since: str, image: bytearray, datacenter: str = "DC0") -> str:
    """Bring an image up to date over /folder; return the new change id."""
    (disk,) = client.frozen_disks(snapshot)
    url = folder_url(disk.backing.fileName.replace(".vmdk", "-flat.vmdk"), datacenter)
    for start, length in client.changed(vm, snapshot, disk, since):
        status, data, headers = client.http("GET", url, Range=f"bytes={start}-{start + length - 1}")
        assert (status, len(data)) == (206, length)
        assert headers["Content-Range"] == f"bytes {start}-{start + length - 1}/{disk.capacityInBytes}"
        image[start : start + length] = data
    return str(disk.backing.changeId)


@pytest.mark.parametrize(("model", "datacenter"), [({}, "DC0"), ({"esx": True}, "ha-datacenter")])
def test_full_and_incremental_reads_are_what_the_guest_had(
    make_vcsim: Callable[..., Simulator], model: dict[str, Any], datacenter: str
) -> None:
    vcsim = make_vcsim(**model)
    moid = vcsim.add_vm("web", tracking=True)
    image = bytearray(8 * MIB)
    since = "*"
    with Client(vcsim) as client:
        vm = client.vm(moid)
        for round_ in range(3):
            fill(vcsim, "web", 0, round_)
            frozen = vcsim.disk("web").read_bytes()
            snapshot = client.snapshot(vm)
            fill(vcsim, "web", 0, 100 + round_)  # after the snapshot: must not be seen
            since = read_changes(client, vm, snapshot, since, image, datacenter)
            assert image == frozen
            client.wait(snapshot.RemoveSnapshot_Task(False))
        assert vcsim.calls()["QueryChangedDiskAreas"] > 3  # the answers come in pages
        vcsim.reset_cbt("web")
        snapshot = client.snapshot(vm)
        with pytest.raises(vim.fault.FileFault):
            read_changes(client, vm, snapshot, since, image)


def test_tracking_can_be_late_and_coarse(vcsim: Simulator) -> None:
    vcsim.tracking(late=True, coarse=MIB)
    moid = vcsim.add_vm("web")
    with Client(vcsim) as client:
        vm = client.vm(moid)
        client.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
        ids = []
        for _ in range(3):
            vcsim.guest_write("web", 0, 5 * MIB + 512, b"x")
            snapshot = client.snapshot(vm)
            (disk,) = client.frozen_disks(snapshot)
            ids.append(disk.backing.changeId)
            areas = list(client.changed(vm, snapshot, disk, ids[1])) if len(ids) == 3 else []
            client.wait(snapshot.RemoveSnapshot_Task(False))
            vcsim.guest_write("web", 0, 5 * MIB, b"%d" % len(ids))
    assert ids[0] in {None, ""}
    assert all(ids[1:])
    assert areas == [(5 * MIB, MIB)]


def test_only_frozen_bases_can_be_read_as_files(vcsim: Simulator) -> None:
    moid = vcsim.add_vm("web")
    base = vcsim.disks("web")[0]["file"]
    with Client(vcsim) as client:
        flat = folder_url(base.replace(".vmdk", "-flat.vmdk"))
        assert client.http("GET", flat)[0] == 500
        snapshot = client.snapshot(client.vm(moid))
        assert client.http("HEAD", flat)[2]["Content-Length"] == str(8 * MIB)
        layer = vcsim.disks("web")[0]["file"]
        assert client.http("GET", folder_url(layer.replace(".vmdk", "-flat.vmdk")))[0] == 404
        assert client.http("GET", flat.replace("DC0", "elsewhere"))[0] == 404
        vcsim.datastore(kind="vsan")
        assert client.http("HEAD", flat)[0] == 404
        vcsim.expire_sessions()
        assert client.http("HEAD", flat)[0] == 401
        with pytest.raises(vim.fault.NotAuthenticated):
            snapshot.RemoveSnapshot_Task(False)
    assert vcsim.leaks()["snapshots"] == {
        "web": [{"name": "test", "id": snapshot._moId, "description": "", "memory": False, "quiesced": False}]
    }


def test_memory_is_in_the_files_of_a_snapshot(vcsim: Simulator) -> None:
    moid = vcsim.add_vm("web", memory_mb=8)
    vcsim.memory("web", b"what the guest thinks")
    with Client(vcsim) as client:
        snapshot = client.snapshot(client.vm(moid), memory=True)
        layout = client.get(client.vm(moid), "layoutEx")["layoutEx"]
        files = {file.key: file for file in layout.file}
        (of,) = layout.snapshot
        data, memory = files[of.dataKey], files[of.memoryKey]
        assert (data.type, memory.type, memory.size) == ("snapshotData", "snapshotMemory", 8 * MIB)
        assert client.http("GET", folder_url(memory.name))[1].startswith(b"what the guest thinks\0")
        assert len(client.http("GET", folder_url(data.name))[1]) == data.size > 0
        client.wait(snapshot.RemoveSnapshot_Task(False))
        assert not vcsim.file(memory.name).exists()
        nvram = next(file.name for file in layout.file if file.type == "nvram")
        assert client.http("PUT", folder_url(nvram), b"variables")[0] == 201
    assert vcsim.nvram("web").read_bytes() == b"variables"


@pytest.mark.parametrize("model", [{}, {"esx": True}])
def test_machines_have_what_the_test_gave_them(make_vcsim: Callable[..., Simulator], model: dict[str, Any]) -> None:
    vcsim = make_vcsim(ds=2, **model)
    disks = [
        {"size": MIB, "controller": "nvme"},
        {"size": MIB, "raw": "physicalMode"},
        {"size": MIB, "mode": "independent_persistent", "datastore": "LocalDS_1"},
        {"size": MIB, "key_id": "secret"},
        {"size": MIB, "controller": "lsilogic-sas", "shared": "physicalSharing"},
    ]
    moid = vcsim.add_vm("web", disks=disks, secure_boot=True, firmware="efi", annotation="a note", on=False)
    vcsim.set("web", guest__toolsRunningStatus="guestToolsRunning")
    if not model:
        vcsim.attribute("web", "owner", "me")
    with Client(vcsim) as client:
        vm = client.vm(moid)
        client.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="another")))
        snapshot = client.snapshot(vm)
        kinds = [type(disk.backing).__name__.rpartition(".")[2] for disk in client.frozen_disks(snapshot)]
        assert kinds.count("RawDiskMappingVer1BackingInfo") == 1
        got = client.get(vm, "config", "guest.toolsRunningStatus", "customValue", "availableField", "summary")
        assert got["guest.toolsRunningStatus"] == got["summary"].guest.toolsRunningStatus == "guestToolsRunning"
        assert [value.value for value in got.get("customValue", ())] == ([] if model else ["me"])
        assert [field.name for field in got.get("availableField", ())] == ([] if model else ["owner"])
        assert (got["config"].guestFullName, got["config"].annotation) == ("Other Linux (64-bit)", "another")
        vcsim.power("web", on=True)
        with pytest.raises(vim.fault.SharedBusControllerNotSupported):
            client.snapshot(vm)


def test_folders_tags_and_names(vcsim: Simulator) -> None:
    vcsim.add_vm("web", folder="a/b")
    moid = vcsim.add_vm("web", folder="a")
    vcsim.tag("a/web", "tier", "gold")
    vcsim.rename("a/b/web", "www")
    vcsim.move("www", "c")
    assert [(vm["name"], vm["folder"]) for vm in vcsim.state()["vms"] if vm["folder"]] == [("www", "c"), ("web", "a")]
    with Client(vcsim) as client:
        session = rest(client, "POST", "/rest/com/vmware/cis/session", {}, Authorization="Basic dXNlcjpwYXNz")
        base, key = "/rest/com/vmware/cis/tagging", {"vmware-api-session-id": session}
        wanted = {"object_id": {"type": "VirtualMachine", "id": moid}}
        (tag,) = rest(client, "POST", f"{base}/tag-association?~action=list-attached-tags", wanted, **key)
        assert rest(client, "GET", f"{base}/tag/id:{tag}", None, **key)["name"] == "gold"
        assert vcsim.leaks() == {"sessions": 1, "rest_sessions": 1}
        rest(client, "DELETE", "/rest/com/vmware/cis/session", None, **key)
    assert not vcsim.leaks()


def rest(client: Client, method: str, path: str, body: Any, **headers: str) -> Any:
    status, data, _ = client.http(method, path, json.dumps(body) if body is not None else None, **headers)
    assert status == 200, data
    return json.loads(data)["value"] if data.strip() else None


def test_a_wrong_password_is_refused(vcsim: Simulator) -> None:
    vcsim.password = "wrong"
    with pytest.raises(vim.fault.InvalidLogin):
        Client(vcsim)


def test_many_machines_at_once(vcsim: Simulator) -> None:
    moids = [vcsim.add_vm(f"vm{n}", tracking=True, host=f"DC0_C0_H{n % 3}") for n in range(12)]

    def work(moid: str) -> None:
        with Client(vcsim) as client:
            vm = client.vm(moid)
            for _ in range(2):
                vcsim.guest_write(moid, 0, 4096, moid.encode())
                snapshot = client.snapshot(vm)
                image = bytearray(8 * MIB)
                read_changes(client, vm, snapshot, "*", image)
                assert image[4096:].startswith(moid.encode())
                client.wait(snapshot.RemoveSnapshot_Task(False))

    with ThreadPoolExecutor(len(moids)) as pool:
        list(pool.map(work, moids))
    assert not vcsim.leaks()
    assert 1 <= vcsim.state()["peak"]["sessions"] <= 12


def test_a_stalled_stream_ends_with_its_client(vcsim: Simulator) -> None:
    vcsim.http_fault("/folder", stall_at=100)
    with Client(vcsim) as client:
        connection = http.client.HTTPSConnection("127.0.0.1", vcsim.port, context=client.context)
        name = folder_url(f"[LocalDS_0] {vcsim.state()['vms'][0]['name']}/vmware.log")
        connection.request("GET", name, headers={"Cookie": client.cookie})
        with connection.getresponse() as response:
            assert len(response.read(100)) == 100
        connection.close()
