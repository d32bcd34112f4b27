"""The simulated vCenter fails where and how a test says, and can be stopped at any call."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.parsers import expat

import pytest
from pyVmomi import vim, vmodl

from tests.servers.daemon import end
from tests.vcsim.client import Client, folder_url
from tests.vcsim.simulator import Simulator

MIB = 1 << 20


def test_faults_are_those_of_calls_or_of_tasks(vcsim: Simulator) -> None:
    moid, other = vcsim.add_vm("web"), vcsim.add_vm("db")
    with Client(vcsim) as client:
        vm = client.vm(moid)
        privilege = "VirtualMachine.State.CreateSnapshot"
        object_ = {"type": "VirtualMachine", "value": moid}
        vcsim.fault("CreateSnapshot_Task", "NoPermission", vm="web", call=True, privilegeId=privilege, object=object_)
        client.wait(client.snapshot(client.vm(other)).RemoveSnapshot_Task(False))
        with pytest.raises(vim.fault.NoPermission) as caught:
            vm.CreateSnapshot_Task("a", "", False, False)
        assert (caught.value.privilegeId, caught.value.object._moId) == (privilege, moid)
        vcsim.fault("CreateSnapshot_Task", "ApplicationQuiesceFault", "VSS says no")
        snapshot = client.snapshot(vm, "not quiesced")
        with pytest.raises(vim.fault.ApplicationQuiesceFault) as quiesce:
            client.snapshot(vm, quiesce=True)
        assert quiesce.value.msg == "VSS says no"
        vcsim.fault("RemoveSnapshot_Task", "TaskInProgress", times=2, skip=1)
        client.wait(client.snapshot(vm).RemoveSnapshot_Task(False))
        for _ in range(2):
            with pytest.raises(vim.fault.TaskInProgress):
                client.wait(snapshot.RemoveSnapshot_Task(False))
        client.wait(snapshot.RemoveSnapshot_Task(False))
    assert not vcsim.leaks()


def test_layers_can_stay_when_a_snapshot_goes(vcsim: Simulator) -> None:
    moid = vcsim.add_vm("web", disks=[MIB])
    with Client(vcsim) as client:
        vm = client.vm(moid)
        snapshot = client.snapshot(vm)
        vcsim.guest_write("web", 0, 0, b"written to the layer")
        vcsim.lose_consolidation()
        client.wait(snapshot.RemoveSnapshot_Task(False))
        assert "-000001" in vcsim.disks("web")[0]["file"]
        assert client.get(vm, "runtime.consolidationNeeded")["runtime.consolidationNeeded"]
        assert vcsim.leaks() == {"sessions": 1, "consolidation_needed": ["web"]}
        vcsim.fault("ConsolidateVMDisks_Task", "FileLocked")
        with pytest.raises(vim.fault.FileLocked):
            client.wait(vm.ConsolidateVMDisks_Task())
        client.wait(vm.ConsolidateVMDisks_Task())
    assert "-000001" not in vcsim.disks("web")[0]["file"]
    assert vcsim.disk("web").read_bytes().startswith(b"written to the layer")
    assert not vcsim.leaks()


def test_a_snapshot_that_somebody_removes_is_gone(vcsim: Simulator) -> None:
    moid = vcsim.add_vm("web", tracking=True)
    with Client(vcsim) as client:
        snapshot = client.snapshot(client.vm(moid), "ours")
        vcsim.snapshot("web", "theirs")
        vcsim.remove_snapshot("web", "ours")
        with pytest.raises(vmodl.fault.ManagedObjectNotFound):
            client.vm(moid).QueryChangedDiskAreas(snapshot, 2000, 0, "*")
    assert [snapshot["name"] for snapshot in vcsim.leaks()["snapshots"]["web"]] == ["theirs"]


@pytest.fixture
def frozen(vcsim: Simulator) -> tuple[str, bytes]:
    """The URL and the bytes of a frozen disk."""
    vcsim.add_vm("web", disks=[MIB])
    vcsim.guest_write("web", 0, 0, bytes(range(256)) * 4096)
    content = vcsim.disk("web").read_bytes()
    name = vcsim.disks("web")[0]["file"]
    vcsim.snapshot("web", "test")
    return folder_url(name.replace(".vmdk", "-flat.vmdk")), content


def test_http_fails_in_all_ways(vcsim: Simulator, frozen: tuple[str, bytes]) -> None:
    url, content = frozen
    with Client(vcsim) as client:
        vcsim.http_fault("/folder", status=503, skip=1)
        assert client.http("GET", url)[:2] == (200, content)
        assert client.http("GET", url)[0] == 503
        vcsim.http_fault("/folder", cut_at=1000)
        with pytest.raises(http.client.IncompleteRead) as cut:
            client.http("GET", url)
        assert cut.value.partial == content[:1000]
        vcsim.http_fault("/folder", truncate_at=1000)
        status, data, headers = client.http("GET", url)
        assert (status, data, "Content-Length" in headers) == (200, content[:1000], False)
        vcsim.http_fault("/folder", flip_at=3)
        assert client.http("GET", url)[1] == content[:3] + b"\xfc" + content[4:]
        vcsim.http_fault("/folder", no_range=True)
        assert client.http("GET", url, Range="bytes=0-9")[0] == 200
        vcsim.http_fault("/folder", headers={"Content-Range": "bytes 5-14/20"})
        assert client.http("GET", url, Range="bytes=0-9")[2]["Content-Range"] == "bytes 5-14/20"
        vcsim.http_fault("/folder", method="PUT", cut_upload=10)
        with pytest.raises((http.client.RemoteDisconnected, OSError)):
            client.http("PUT", url, b"x" * 100)
        assert vcsim.calls()["GET /folder"] == 7


def test_soap_answers_get_lost(vcsim: Simulator) -> None:
    vcsim.http_fault("/sdk", method="CreateSnapshot_Task", status=503)
    vcsim.http_fault("/sdk", method="CreateSnapshot_Task", cut_at=0)
    vm = vcsim.add_vm("web")
    with Client(vcsim) as client:
        with pytest.raises(http.client.HTTPException):
            client.snapshot(client.vm(vm))
        assert "snapshots" not in vcsim.leaks()
        with pytest.raises(expat.ExpatError):  # pyvmomi takes what has come for the whole answer
            client.snapshot(client.vm(vm))
    assert len(vcsim.leaks()["snapshots"]["web"]) == 1


def test_leases_fail_in_all_ways(make_vcsim: Callable[..., Simulator]) -> None:
    vcsim = make_vcsim(lease_timeout="100ms")
    moid = vcsim.add_vm("web", disks=[MIB])
    with Client(vcsim) as client:
        snapshot = client.snapshot(client.vm(moid))
        vcsim.lease_fault("FileLocked")
        lease = snapshot.ExportSnapshot()
        assert isinstance(client.get(lease, "error")["error"], vim.fault.FileLocked)
        lease = snapshot.ExportSnapshot()
        while client.get(lease, "state")["state"] != "error":  # nobody tells of progress
            pass
        assert isinstance(client.get(lease, "error")["error"], vim.fault.Timedout)
        with pytest.raises(vim.fault.Timedout):
            lease.HttpNfcLeaseProgress(10)
        vcsim.lease_delay(20)
        lease = snapshot.ExportSnapshot()
        assert client.get(lease, "state")["state"] == "initializing"
        while client.get(lease, "state")["state"] == "initializing":
            pass
        (url,) = client.get(lease, "info")["info"].deviceUrl
        vcsim.http_fault("/nfc", capacity=2 * MIB)
        stream = client.http("GET", url.url.removeprefix("https://*"))[1]
        assert int.from_bytes(stream[12:20], "little") == 2 * MIB // 512
        vcsim.host_state("DC0_C0_H0", "notResponding")
        assert client.http("GET", url.url.removeprefix("https://*"))[0] == 503
        with pytest.raises(vmodl.fault.HostNotConnected):
            client.snapshot(client.vm(moid))
        lease.HttpNfcLeaseAbort()
    assert "leases" not in vcsim.leaks()


def test_privileges_are_answered_and_enforced(vcsim: Simulator) -> None:
    moid = vcsim.add_vm("web")
    wanted = ["VirtualMachine.State.CreateSnapshot", "VApp.Export"]
    vcsim.deny("VirtualMachine.State.CreateSnapshot", moid)
    vcsim.deny("Datastore.Browse")
    with Client(vcsim) as client:
        vm = client.vm(moid)
        rights = client.content.authorizationManager
        (answer,) = rights.HasPrivilegeOnEntities([vm], "whoever", wanted)
        assert [given.isGranted for given in answer.privAvailability] == [False, True]
        with pytest.raises(vim.fault.NoPermission) as caught:
            client.snapshot(vm)
        assert caught.value.privilegeId == wanted[0]
        vcsim.deny("VirtualMachine.Config.ChangeTracking")
        with pytest.raises(vim.fault.NoPermission) as caught:
            vm.ReconfigVM_Task(vim.vm.ConfigSpec(changeTrackingEnabled=True))
        assert caught.value.privilegeId == "VirtualMachine.Config.ChangeTracking"
        client.wait(vm.ReconfigVM_Task(vim.vm.ConfigSpec(annotation="a")))
        assert client.http("GET", folder_url("[LocalDS_0] web/web.vmx"))[0] == 403
        client.snapshot(client.vm(vcsim.add_vm("db")))


def test_a_task_can_be_held(vcsim: Simulator) -> None:
    moid = vcsim.add_vm("web")
    vcsim.hold_task("CreateSnapshot_Task")
    with Client(vcsim) as client:
        task = client.vm(moid).CreateSnapshot_Task("slow", "", False, False)
        assert client.get(task, "info.state")["info.state"] == "running"
        assert "snapshots" not in vcsim.leaks()
        assert vcsim.state()["held_tasks"] == 1
        vcsim.release_tasks()
        while client.get(task, "info.state")["info.state"] == "running":
            pass
    assert vcsim.leaks()["snapshots"]["web"][0]["name"] == "slow"


CLIENT = """
from tests.vcsim.client import Client
from tests.vcsim.simulator import Simulator
from pathlib import Path
import sys
simulator = Simulator.__new__(Simulator)  # the one that runs already
simulator.port, simulator.ca = int(sys.argv[1]), Path(sys.argv[2])
with Client(simulator) as client:
    snapshot = client.snapshot(client.vm(sys.argv[3]), "ours")
    client.wait(snapshot.RemoveSnapshot_Task(False))
"""


@pytest.mark.parametrize(
    ("when", "drop", "stays"), [("before", True, False), ("before", False, True), ("after", False, True)]
)
def test_a_client_can_be_killed_at_a_call(vcsim: Simulator, when: str, *, drop: bool, stays: bool) -> None:
    moid = vcsim.add_vm("web")
    vcsim.stop_at(call="CreateSnapshot", when=when)
    root = Path(__file__).parents[2]
    words = [sys.executable, "-c", CLIENT, str(vcsim.port), str(vcsim.ca), moid]
    with subprocess.Popen(words, cwd=root) as client:
        held = vcsim.wait_stopped()
        assert (held["call"], held["on"]) == ("CreateSnapshot_Task", moid)
        assert ("snapshots" in vcsim.leaks()) is (when == "after")
        end(client.pid, signal.SIGKILL)
    vcsim.release(drop=drop)
    assert ("snapshots" in vcsim.leaks()) is stays
    names = [call["call"] for call in vcsim.call_log()]
    assert names[-1] == "CreateSnapshot_Task"
    vcsim.stop_at(n=2)  # counts from here
    vcsim.release()
    with Client(vcsim):
        pass
