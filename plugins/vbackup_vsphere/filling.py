"""A machine being made empty, whose disks are then written through VDDK: only what they hold, wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from vbackup.api import PluginError, Run, SinkDisk
from vbackup_vsphere import devices, spec
from vbackup_vsphere.making import Making
from vbackup_vsphere.properties import moid
from vbackup_vsphere.readers import vddk


class Filling(Making):
    """A machine whose disks are written through VDDK."""

    def sink(self, key: str) -> SinkDisk:
        """See `Making.sink`."""
        return FillingSink(self, key)

    def file(self, vm: Any, key: str) -> str:
        """Return the VMDK of a disk, as the host has named it."""
        there = devices.disk_places(self.session.get(vm, "config.hardware.device").get("config.hardware.device", ()))
        at = devices.place(self.goal.config, self.goal.disks[key])
        found = there.get(at) if at is not None else None
        if found is None:
            raise PluginError(f"{self.goal.identity.name}: the host has made no disk {key}")
        return str(found.backing.fileName)

    def _make(self, named: Callable[[Any], None]) -> Any:
        session, place = self.session, self.goal.placement
        wanted = spec.build(self.goal.order)
        what = f"{session.alias}: making the machine {self.goal.order.identity.name}"
        task = session.call(what, lambda: place.folder.CreateVM_Task(wanted, place.pool, place.host))
        vm = session.wait(task, what)
        named(vm)
        return vm

    def _end(self) -> None:
        """Nothing holds the machine: what was written is on its disks."""

    def _told(self, percent: int) -> None:
        """Nobody is to be told."""

    def _leave(self) -> None:
        """The machine stays until its journal is undone."""


class FillingSink:
    """A `SinkDisk`."""

    def __init__(self, owner: Filling, key: str) -> None:
        self._owner = owner
        self._key = key

    def write(self, runs: Iterable[Run]) -> None:
        """See `SinkDisk.write`."""
        owner, key = self._owner, self._key
        vm = owner.start()
        size = spec.rounded(owner.goal.sizes[key])
        what = f"disk {key} of {owner.goal.identity.name}"
        with vddk.open_for_writing(owner.session, moid(vm), owner.file(vm, key), size, what) as client:
            client.write(owner.counted(key, runs), zeroed=True)
        owner.wrote(key)
