"""kill -9 at every call of a restore: what is left is swept, or brought to its end; nobody else's is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.vcsim.simulator import Simulator
from vbackup.api import MachineDescription
from vbackup_vsphere import settings

from .restores import MIB, VCenter, contents, libvirt_machine

# Forks for each line and says the child's process id, then how it ended.
DYING = """
import json, os, sys
from pathlib import Path
from vbackup.api import HypervisorContext, MachineDescription, RestoreDisk, RestoreRequest, Run
from vbackup_vsphere.options import VsphereOptions
from vbackup_vsphere.restore import restore
from vbackup_vsphere.session import Session

told = json.loads(sys.stdin.readline())
options = VsphereOptions.model_validate(told["options"])
machine = MachineDescription.model_validate(told["machine"])
context = HypervisorContext("vc", Path(told["state"]))
request = RestoreRequest(**told["request"])

def work():
    session = Session(options, "vc")
    disks = [RestoreDisk(d.key, d.size, d.format) for d in machine.disks]
    with restore(session, context, machine, disks, {}, request) as restoration:
        for d in machine.disks:
            restoration.disks[d.key].write([Run(0, d.size, b"x" * d.size)])
        restoration.finish()
    session.close()

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

READING = ("Retrieve", "Continue", "Login", "Logout", "Create", "Destroy", "WaitFor", "GET", "HttpNfcLeaseProgress")
READING_TOO = ("FindByInventoryPath", "FindChild", "QueryConfigOptionDescriptor", "CancelRetrieve")

Begin = Callable[[], int]
End = Callable[[], int]


@pytest.fixture
def vcenter(vcsim: Simulator, tmp_path: Path):
    vcenter = VCenter(vcsim, tmp_path / "state")
    yield vcenter
    vcenter.session.close()


@contextmanager
def restorer(
    vcenter: VCenter, machine: MachineDescription, way: dict[str, Any], **request: object
) -> Iterator[tuple[Begin, End]]:
    """Give what begins a restore in a process of its own and says its id, and what says how it ended."""
    told = {
        "options": vcenter.simulator.options(pool="/DC0/host/DC0_C0", datastore="LocalDS_0", **way),
        "machine": machine.model_dump(mode="json"),
        "state": str(vcenter.context.state_dir),
        "request": request,
    }
    child = subprocess.Popen([sys.executable, "-c", DYING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stdin, stdout = child.stdin, child.stdout
    assert stdin is not None
    assert stdout is not None
    with child:
        stdin.write(json.dumps(told) + "\n")

        def begin() -> int:
            stdin.write("go\n")
            stdin.flush()
            return int(stdout.readline())

        yield begin, lambda: int(stdout.readline())
        stdin.close()
    assert child.returncode == 0


def changing(simulator: Simulator, since: int) -> list[tuple[str, int]]:
    """Return the calls since the n-th that change something, as (name, how many of that name there were)."""
    seen: Counter[str] = Counter()
    found = []
    for entry in simulator.call_log()[since:]:
        name = entry["call"]
        if name.startswith("Destroy_Task") or not name.startswith((*READING, *READING_TOO)):
            seen[name] += 1
            found.append((name, seen[name]))
    return found


def deaths(vcenter: VCenter, begin: Begin, end: End, calls: list[tuple[str, int]]) -> Iterator[str]:
    """Let a restore die before and after each of these calls; yields which, for the looking after."""
    simulator = vcenter.simulator
    for name, number in calls:
        for when in ("before", "after"):
            vcenter.session.close()
            simulator.stop_at(number, call=name, when=when)
            pid = begin()
            simulator.wait_stopped()
            os.kill(pid, signal.SIGKILL)
            assert end() == -9
            simulator.release(drop=when == "before")
            yield f"{when} {name} {number}"


def test_a_new_machine_is_there_whole_or_not_at_all(vcenter: VCenter) -> None:
    machine, before = libvirt_machine(), vcenter.names
    with restorer(vcenter, machine, {}, name="copy") as (begin, end):
        since = len(vcenter.simulator.call_log())
        begin()
        assert end() == 0
        calls = changing(vcenter.simulator, since)
        vcenter.simulator.destroy("copy")
        swept = 0
        for died in deaths(vcenter, begin, end, calls):
            swept += len(vcenter.sweep())
            assert vcenter.journals() == [], died
            if "copy" in vcenter.names:
                assert has(vcenter, "copy") == {b"x" * disk.size for disk in machine.disks}, died
                vcenter.simulator.destroy("copy")
            assert vcenter.names == before, died
    assert {"ImportVApp", "HttpNfcLeaseComplete", "ReconfigVM_Task"} <= {name for name, _ in calls}
    assert swept > 5


@pytest.mark.parametrize("by_vddk", [False, True])
def test_in_place_there_is_always_one_of_the_two(vcenter: VCenter, by_vddk: bool) -> None:
    machine = libvirt_machine()
    way = {"vddk": vcenter.simulator.vddk()} if by_vddk else {}
    old = contents(machine)
    vcenter.restore(machine, old)
    other = vcenter.simulator.add_disk("web", {"size": MIB, "controller": "ahci", "mode": "independent_persistent"})
    vcenter.simulator.guest_write("web", other, 0, b"never in a backup")
    there = {*old.values(), vcenter.bytes_of("web", other)}
    before = vcenter.names
    with restorer(vcenter, machine, way, overwrite=True) as (begin, end):
        since = len(vcenter.simulator.call_log())
        begin()
        assert end() == 0
        calls = changing(vcenter.simulator, since)
        vcenter.restore(machine, old, overwrite=True)
        said = ""
        for died in deaths(vcenter, begin, end, calls):
            said += "; ".join(vcenter.sweep())
            assert vcenter.journals() == [], died
            assert vcenter.names == before, died
            assert vcenter.describe("web").id == machine.id, died
            if has(vcenter, "web") != there:
                assert has(vcenter, "web") == {*(b"x" * len(one) for one in old.values()), *(there - {*old.values()})}
                vcenter.restore(machine, old, overwrite=True)
    assert "Destroy_Task" in {name for name, _ in calls}
    assert "name back" in said
    assert "finished a restore" in said


def has(vcenter: VCenter, name: str) -> set[bytes]:
    """Return what is on the disks of a machine."""
    return {vcenter.bytes_of(name, disk["key"]) for disk in vcenter.simulator.disks(name)}


@pytest.mark.parametrize("knows_it", [True, False])
def test_a_machine_that_lost_the_mark_is_not_ours_to_remove(vcenter: VCenter, knows_it: Any) -> None:
    with restorer(vcenter, libvirt_machine(), {}, name="copy") as (begin, end):
        for _ in deaths(vcenter, begin, end, [("POST /nfc", 1)]):
            if not knows_it:
                (journal,) = vcenter.journals()
                journal.write_text(json.dumps(json.loads(journal.read_text()) | {"vm": ""}))
            vcenter.reconfigure("copy", extraConfig=[vim.option.OptionValue(key=settings.MARK, value="another's")])
            assert vcenter.sweep() == []
            assert "copy" in vcenter.names
            vcenter.simulator.destroy("copy")
