"""What a test puts into the simulated vCenter: machines, disks, snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.vcsim.control import Control

_DISK = 8 << 20


class Machines(Control):
    """A machine is named by its name, by its managed object id, or by ``folder/name``."""

    def add_vm(
        self,
        name: str,
        *,
        folder: str = "",
        disks: Sequence[int | dict[str, Any]] = (_DISK,),
        nics: Sequence[dict[str, str]] = ({},),
        host: str = "",
        datastore: str = "LocalDS_0",
        on: bool = True,
        tracking: bool = False,
        guest: str = "otherLinux64Guest",
        **more: Any,
    ) -> str:
        """Make a machine; return its managed object id.

        A disk is its size in bytes, or a dict of ``size`` and, as needed, ``controller`` (pvscsi, lsilogic,
        lsilogic-sas, buslogic, ahci, ide, nvme), ``mode`` (independent_persistent...), ``raw`` (physicalMode: a raw
        device mapping), ``shared`` (physicalSharing: its bus), ``sharing`` (sharingMultiWriter), ``key_id``
        (encrypted), ``datastore``, ``thick``. A network card: ``kind`` (vmxnet3, e1000, e1000e), ``network``, ``mac``.
        More: ``firmware`` (efi), ``secure_boot``, ``memory_mb``, ``cpus``, ``cores_per_socket``, ``annotation``,
        ``template``, ``extra_config``.
        """
        answer = self._tell(
            "add-vm",
            name=name,
            folder=folder,
            disks=[_disk(disk) for disk in disks],
            nics=list(nics),
            host=host,
            datastore=datastore,
            on=on and not more.get("template", False),
            tracking=tracking,
            guest=guest,
            **{"memory_mb": 4, "cpus": 1, **more},
        )
        return str(answer["id"])

    def set(self, vm: str, **values: Any) -> None:
        """Set properties by their paths, ``__`` for the dots: ``guest__toolsRunningStatus="guestToolsRunning"``."""
        self._tell("set", vm=vm, values={path.replace("__", "."): value for path, value in values.items()})

    def power(self, vm: str, *, on: bool) -> None:
        """Switch a machine on or off."""
        self._tell("power", vm=vm, on=on)

    def rename(self, vm: str, name: str) -> None:
        """Give a machine another name; its files keep theirs."""
        self._tell("rename", vm=vm, name=name)

    def move(self, vm: str, folder: str) -> None:
        """Move a machine to a folder, which is made when it is not there."""
        self._tell("move", vm=vm, folder=folder)

    def destroy(self, vm: str) -> None:
        """Remove a machine with its disks and snapshots, also when it runs."""
        self._tell("destroy", vm=vm)

    def tag(self, vm: str, category: str, name: str) -> None:
        """Attach a tag (of the REST API) to a machine."""
        self._tell("tag", vm=vm, category=category, name=name)

    def attribute(self, vm: str, name: str, value: str) -> None:
        """Set a custom attribute of a machine."""
        self._tell("attribute", vm=vm, name=name, value=value)

    def nvram(self, vm: str) -> Path:
        """Return the file of a machine's firmware variables."""
        return Path(self._tell("nvram", vm=vm)["path"])

    def memory(self, vm: str, data: bytes) -> None:
        """Say what a machine's memory begins with, for snapshots that save it; else numbers that count up."""
        self._ask("memory", data, vm=vm)

    def snapshot(self, vm: str, name: str, *, memory: bool = False, description: str = "") -> str:
        """Take a snapshot as somebody else; return its managed object id."""
        return str(self._tell("snapshot", vm=vm, name=name, memory=memory, description=description)["id"])

    def remove_snapshot(self, vm: str, name: str) -> None:
        """Remove a snapshot (by its name or id) as somebody else."""
        self._tell("remove-snapshot", vm=vm, name=name)

    def guest_write(self, vm: str, key: int, offset: int, data: bytes) -> None:
        """Write to a disk as its guest does; key 0: the machine's first disk."""
        self._ask("guest-write", data, vm=vm, key=key, offset=offset)

    def disk(self, vm: str, key: int = 0) -> Path:
        """Return the file that holds all of a disk as its guest sees it now."""
        return Path(self._tell("disk", vm=vm, key=key)["path"])

    def disks(self, vm: str) -> list[dict[str, Any]]:
        """Return ``key``, ``size`` and ``file`` (its datastore path) of each disk."""
        disks: list[dict[str, Any]] = self._tell("disks", vm=vm)
        return disks

    def add_disk(self, vm: str, disk: int | dict[str, Any]) -> int:
        """Add a disk, given as in `add_vm`; return its device key."""
        return int(self._tell("add-disk", vm=vm, disk=_disk(disk))["key"])

    def remove_disk(self, vm: str, key: int) -> None:
        """Remove a disk with its files."""
        self._tell("remove-disk", vm=vm, key=key)

    def resize_disk(self, vm: str, key: int, size: int) -> None:
        """Let a disk grow to so many bytes."""
        self._tell("resize-disk", vm=vm, key=key, size=size)

    def file(self, name: str) -> Path:
        """Return the file that a datastore path such as ``[LocalDS_0] dir/x.vmx`` means."""
        return Path(self._tell("file", name=name)["path"])

    def reset_cbt(self, vm: str) -> None:
        """Forget the machine's change history, as a host's crash does: its change ids are void."""
        self._tell("reset-cbt", vm=vm)

    def tracking(self, *, coarse: int | None = None, late: bool | None = None, star: str | None = None) -> None:
        """Let change tracking be as rough as that of real hosts; None leaves it as it is.

        coarse: areas are rounded out to multiples of so many bytes. late: it begins only at the second snapshot after
        it was switched on. star: what ``*`` answers: "whole" (all of the disk), "fault", or "" (what is allocated).
        """
        self._tell("tracking", coarse=coarse, late=late, star=star)


def _disk(disk: int | dict[str, Any]) -> dict[str, Any]:
    return {"size": disk} if isinstance(disk, int) else {"size": _DISK, **disk}
