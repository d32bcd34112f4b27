"""kill -9 at every call of a capture: after the next run no snapshot of ours is left, and none of others is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.vcsim.simulator import Simulator
from vbackup_undo.journal import Journals
from vbackup_vsphere.journal import CaptureEntry

from .captures import MACHINE, OWNER, Site, Sites

# Forks for each line and says the child's process id, then how it ended.
DYING = """
import json, os, sys
from pathlib import Path
from vbackup.api import CaptureRequest, HypervisorContext, Kind, Quiesce, Range, split
from vbackup_vsphere.capture import capture
from vbackup_vsphere.hypervisor import Vsphere
from vbackup_vsphere.options import VsphereOptions

told = json.loads(sys.stdin.readline())
options = VsphereOptions.model_validate(told["options"])
context = HypervisorContext("vc", Path(told["state"]))

def work():
    vsphere = Vsphere(options, context)
    with vsphere.capture(told["machine"], CaptureRequest(told["owner"], quiesce=Quiesce.NO)) as capture:
        for disk in capture.disks:
            wanted = [Range(e.offset, e.length) for e in disk.extents(full=True) if e.kind is Kind.DATA]
            for _ in disk.read(split(wanted, 1 << 20)):
                pass
        capture.check()
    vsphere.close()

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

CHANGING = ("CreateSnapshot_Task", "RemoveSnapshot_Task", "ReconfigVM_Task", "ExportSnapshot", "HttpNfcLease")

Begin = Callable[[], int]
End = Callable[[], int]


@contextmanager
def dying(site: Site, options: dict[str, Any]) -> Iterator[tuple[Begin, End]]:
    """Give what begins a capture in a process of its own and says its id, and what says how it ended."""
    told = {
        "options": site.simulator.options(**options),
        "state": str(site.vsphere.site.context.state_dir),
        "machine": MACHINE,
        "owner": OWNER,
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


def calls_of_a_capture(simulator: Simulator, begin: Begin, end: End) -> list[str]:
    """Return the calls of a whole capture in their order."""
    since = len(simulator.call_log())
    begin()
    assert end() == 0
    return [entry["call"] for entry in simulator.call_log()[since:]]


@pytest.mark.parametrize(("read", "foreign"), [("nfc", ["before the update"]), ("datastore", [])])
@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_killed_at_every_call(make_site: Sites, vcsim: Simulator, read: str, foreign: list[str], journal: str) -> None:
    options = {"read": [read]}
    site = make_site(**options)
    site.track()
    site.write(9, b"content")
    for name in foreign:
        vcsim.snapshot(MACHINE, name)
    journals = Journals(site.vsphere.site.context.state_dir, "capture", CaptureEntry)
    with dying(site, options) as (begin, end):
        calls = calls_of_a_capture(vcsim, begin, end)
        assert site.snapshots() == foreign
        first = calls.index("CreateSnapshot_Task") + 1  # what comes before only reads
        deaths = [(n, "before") for n in range(first, len(calls) + 1)]
        deaths += [(n, "after") for n, call in enumerate(calls, 1) if call.startswith(CHANGING)]
        left = 0
        for n, when in deaths if journal == "kept" else deaths[-3:]:
            site.vsphere.close()
            vcsim.stop_at(n, when=when)
            pid = begin()
            vcsim.wait_stopped()
            os.kill(pid, signal.SIGKILL)
            assert end() == -9
            vcsim.release(drop=when == "before")
            left += len(site.snapshots()) > len(foreign)
            if journal == "lost":
                for path in site.vsphere.site.context.state_dir.glob("capture-*.json"):
                    path.unlink()
            site.vsphere.sweep(OWNER)
            assert site.snapshots() == foreign, (n, when, calls[n - 1])
            assert list(journals.dead()) == []
    assert left
    copy = site.capture()
    assert copy.disks == {k: site.content() for k in copy.disks}
    assert not site.get("runtime.consolidationNeeded")
