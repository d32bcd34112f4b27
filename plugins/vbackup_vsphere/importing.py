"""A machine being made by ImportVApp: its disks are streamed to the lease's addresses, or it never was.

vSphere takes the machine back itself when its lease is given up or runs out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from pyVmomi import vim

from vbackup.api import PluginError, Run, SinkDisk, Unavailable
from vbackup_vsphere import devices, spec
from vbackup_vsphere.devices import Place
from vbackup_vsphere.document import Config, Disk
from vbackup_vsphere.lease import Lease, LeaseUrl
from vbackup_vsphere.making import Making
from vbackup_vsphere.vmdk.writer import write_stream

_LEVEL = 1  # of zlib: the network is faster than better levels
_TYPE = "application/x-vnd.vmware-streamVmdk"


class Import(Making):
    """A machine whose disks are uploaded."""

    _lease: Lease | None = None
    _addresses: Mapping[str, LeaseUrl] = {}

    def sink(self, key: str) -> SinkDisk:
        """See `Making.sink`."""
        return ImportSink(self, key)

    def address(self, key: str) -> LeaseUrl:
        """Return where to send a disk."""
        self.start()
        return self._addresses[key]

    def check(self) -> None:
        """Raise `Unavailable` when the host has given the import up."""
        if self._lease is not None:
            self._lease.check()

    def _make(self, named: Callable[[Any], None]) -> Any:
        session, goal, place = self.session, self.goal, self.goal.placement
        wanted = vim.vm.VmImportSpec(configSpec=spec.build(goal.order))
        name = goal.order.identity.name
        ref = session.call(
            f"{session.alias}: making the machine {name}",
            lambda: place.pool.ImportVApp(wanted, place.folder, place.host),
        )
        lease = Lease(session, ref, f"{session.alias}: importing {name}")
        self._lease = lease.__enter__()  # _leave() ends it on all ways: it is completed only when that is said
        vm = session.get(ref, "info")["info"].entity
        named(vm)
        self._addresses = addresses(goal.config, goal.disks, lease.urls)
        return vm

    def _end(self) -> None:
        if self._lease is not None:
            self._lease.complete()

    def _told(self, percent: int) -> None:
        if self._lease is not None:
            self._lease.progress(percent)

    def _leave(self) -> None:
        if self._lease is not None:
            self._lease.abort()  # does nothing to one that was completed


class ImportSink:
    """A `SinkDisk`."""

    def __init__(self, owner: Import, key: str) -> None:
        self._import = owner
        self._key = key

    def write(self, runs: Iterable[Run]) -> None:
        """See `SinkDisk.write`."""
        owner, key = self._import, self._key
        address = owner.address(key)
        stream = write_stream(owner.counted(key, runs), spec.rounded(owner.goal.sizes[key]), level=_LEVEL)
        # A stream has threads: it must end with us, not when it is collected.
        with closing(stream):
            try:
                self._send(address, stream)
            except Unavailable:
                owner.check()  # which knows better why
                raise
        owner.wrote(key)

    def _send(self, address: LeaseUrl, stream: Iterable[bytes]) -> None:
        headers = {"Content-Type": _TYPE}
        with self._import.session.open(
            "POST", address.url, headers=headers, body=stream, thumbprint=address.thumbprint
        ) as answer:
            answer.read()


def addresses(config: Config, disks: Mapping[str, Disk], urls: Sequence[LeaseUrl]) -> dict[str, LeaseUrl]:
    """Return where each disk goes, by the restore point's keys; ``urls`` are those of the lease.

    ``HttpNfcLeaseDeviceUrl.importKey`` ends in the controller's type and number and the unit of the disk, as in
    ``/vm-7/ParaVirtualSCSIController0:1``.

    Raises: `PluginError` when it cannot be told which address is whose: disks must not be confused.
    """
    mine = {devices.place(config, disk): key for key, disk in disks.items()}
    to_disks = [one for one in urls if one.is_disk]
    if len(disks) == len(to_disks) == 1:
        return dict(zip(disks, to_disks, strict=True))
    found: dict[str, LeaseUrl] = {}
    for one in to_disks:
        key = next((mine[at] for at in (_place(one.import_key), _place(one.key)) if at in mine), None)
        if key is not None:
            found[key] = one
    if missing := sorted(set(disks) - set(found)):
        said = ", ".join(one.import_key for one in to_disks)
        raise PluginError(f"the host does not say where to send disk {', '.join(missing)}: it has {said}")
    return found


_KEY = re.compile(r"(?P<kind>[A-Za-z]*Controller)(?P<number>\d+):(?P<unit>\d+)$")
_BUSES = {
    "scsi": "scsi",
    "lsi": "scsi",
    "buslogic": "scsi",
    "ahci": "sata",
    "sata": "sata",
    "ide": "ide",
    "nvm": "nvme",
}


def _place(key: str) -> Place | None:
    found = _KEY.search(key)
    if found is None:
        return None
    kind = found["kind"].lower()
    bus = next((bus for word, bus in _BUSES.items() if word in kind), "")
    return Place(bus, int(found["number"]), int(found["unit"]))
