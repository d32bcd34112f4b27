"""Runs vbackup commands that die, by SIGKILL, at the n-th operation of a kind.

A server: it imports everything once and forks for each command, so that a loop over every n is affordable. One JSON
request a line, ``{"argv": [...], "kind": "hypervisor" or a transport's type, "die_at": n}`` (0: never), one JSON answer
a line, ``{"status": exit code or -signal, "operations": n or null, "output": text}``. An operation that changes
something counts twice, before and after it takes effect; one that only looks counts once.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import libvirt
import libvirt_qemu

from tests.servers.stores import registry
from vbackup.cli.main import main
from vbackup_qemu.host import LocalHost
from vbackup_vsphere.stub import Stub
from vbackup_vsphere.web import Web

STORE = ("put", "get", "list", "delete", "size", "create")
HOST = ("run", "spawn", "make_private_dir", "remove_tree", "write_file", "read_file")
LOCAL = {"isAlive", "connect", "getName", "name", "UUIDString", "setKeepAlive", "domain", "ref"}
"""Methods of libvirt's objects that do not ask the hypervisor."""
LOOKS = {
    "get", "size", "read_file", "open", "close", "listAllDomains", "listAllSnapshots", "listAllCheckpoints", "isActive",
    "lookupByName", "lookupByUUIDString", "checkpointLookupByName", "XMLDesc", "getXMLDesc", "backupGetXMLDesc",
    "jobInfo", "jobStats", "blockInfo", "blockJobInfo", "state", "info", "getLibVersion",
}  # fmt: skip


VSPHERE_LOOKS = (
    "Retrieve", "Query", "Find", "CreateContainerView", "CreateCollector", "CreateFilter", "DestroyPropertyCollector",
    "DestroyView", "Wait", "CurrentTime", "HasPrivilege", "Continue",
)  # fmt: skip
"""Of vSphere's methods those that change nothing that lasts."""


class Counter:
    """Counts operations and dies at one of them."""

    def __init__(self, die_at: int) -> None:
        self.count = 0
        self._die_at = die_at
        self._lock = threading.Lock()

    def tick(self) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._die_at:
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()  # the signal is on its way; nothing more may happen

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def listed(*args: Any, **kwargs: Any) -> Iterator[Any]:
                self.tick()
                yield from function(*args, **kwargs)
                self.tick()

            return listed

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            result = function(*args, **kwargs)
            if function.__name__ not in LOOKS:
                self.tick()
            return result

        return called

    def watch(self, kind: str) -> None:
        """Count what calls of ``kind`` are made from now on."""
        if kind != "hypervisor":
            self._wrap(registry().transports[kind], STORE)
            return
        self._wrap(LocalHost, HOST)
        for cls in (libvirt.virConnect, libvirt.virDomain, libvirt.virDomainCheckpoint):
            methods = [name for name in vars(cls) if not name.startswith("_") and callable(vars(cls)[name])]
            self._wrap(cls, [name for name in methods if name not in LOCAL])
        self._watch_vsphere()
        self._wrap(libvirt, ["open", "openAuth"])
        self._wrap(libvirt_qemu, ["qemuMonitorCommand"])

    def _watch_vsphere(self) -> None:
        self._wrap(Web, ["send"])
        invoke = Stub.InvokeMethod

        def invoked(stub: Stub, target: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
            self.tick()
            result = invoke(stub, target, method, *args, **kwargs)
            if not method.wsdlName.startswith(VSPHERE_LOOKS):
                self.tick()
            return result

        Stub.InvokeMethod = invoked

    def _wrap(self, owner: Any, names: Any) -> None:
        for name in names:
            if hasattr(owner, name):
                setattr(owner, name, self.around(getattr(owner, name)))


def perform(request: dict[str, Any], output: int, operations: int) -> None:
    """In the child: run the command, write how many operations there were, and end."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    counter = Counter(request["die_at"])
    counter.watch(request["kind"])
    sys.argv = ["vbackup", *request["argv"]]
    status = 1
    try:
        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(operations, str(counter.count).encode())
        os._exit(status)


def serve() -> None:
    """Answer requests until there are no more."""
    registry()
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as operations:
            child = os.fork()
            if child == 0:
                perform(request, output.fileno(), operations.fileno())
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            operations.seek(0)
            answer = {"status": status, "output": output.read().decode(errors="replace")}
            count = operations.read()
            print(json.dumps(answer | {"operations": int(count) if count else None}), flush=True)


if __name__ == "__main__":
    serve()
