"""The smallest client of a vCenter, for the simulator's own tests: pyvmomi, and HTTP with its session's cookie."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from typing import Any, Self
from urllib.parse import quote

from pyVmomi import SoapStubAdapter, vim, vmodl
from pyVmomi.VmomiSupport import newestVersions

from tests.vcsim.simulator import Simulator


class Client:
    """A session. A context manager: logs out."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.context = ssl.create_default_context(cafile=str(simulator.ca))
        version = newestVersions.GetName("vim")
        self._stub = SoapStubAdapter(simulator.host, simulator.port, version=version, sslContext=self.context)
        self.content = vim.ServiceInstance("ServiceInstance", self._stub).RetrieveContent()
        try:
            self.content.sessionManager.Login(simulator.user, simulator.password, None)
        except BaseException:
            self._stub.DropConnections()
            raise
        self.cookie = self._stub.cookie.split(";")[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.content.sessionManager.Logout()
        except vim.fault.NotAuthenticated:
            pass
        finally:
            self._stub.DropConnections()

    def vm(self, moid: str) -> Any:
        return vim.VirtualMachine(moid, self._stub)

    def get(self, ref: Any, *paths: str) -> dict[str, Any]:
        """Leaf properties of one object."""
        query = vmodl.query.PropertyCollector
        spec = query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=ref)],
            propSet=[query.PropertySpec(type=type(ref), pathSet=list(paths))],
        )
        answer = self.content.propertyCollector.RetrievePropertiesEx([spec], query.RetrieveOptions())
        return {prop.name: prop.val for prop in answer.objects[0].propSet}

    def wait(self, task: Any) -> Any:
        """The result of a task, which is over: the simulator's are."""
        info = self.get(task, "info.state", "info.error", "info.result")
        if info["info.state"] == "error":
            raise info["info.error"]
        assert info["info.state"] == "success"
        return info.get("info.result")

    def snapshot(self, vm: Any, name: str = "test", *, memory: bool = False, quiesce: bool = False) -> Any:
        return self.wait(vm.CreateSnapshot_Task(name, "", memory, quiesce))

    def frozen_disks(self, snapshot: Any) -> list[Any]:
        devices = self.get(snapshot, "config.hardware.device")["config.hardware.device"]
        return [device for device in devices if isinstance(device, vim.vm.device.VirtualDisk)]

    def changed(self, vm: Any, snapshot: Any, disk: Any, since: str) -> Iterator[tuple[int, int]]:
        """Yield (offset, length) of what has changed."""
        at = 0
        while at < disk.capacityInBytes:
            page = vm.QueryChangedDiskAreas(snapshot, disk.key, at, since)
            yield from ((area.start, area.length) for area in page.changedArea)
            at = page.startOffset + page.length

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """Make a request with the session's cookie; return the status, the body and the headers."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.simulator.port, context=self.context, timeout=30)
        try:
            connection.request(method, path, body, {"Cookie": self.cookie, **headers})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.headers)
        finally:
            connection.close()


def folder_url(name: str, datacenter: str = "DC0") -> str:
    """The path of HTTP of a file ``[datastore] dir/file``."""
    datastore, _, path = name[1:].partition("] ")
    return f"/folder/{quote(path)}?dcPath={quote(datacenter)}&dsName={quote(datastore)}"
