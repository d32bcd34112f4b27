"""Machines for one test: what the fixture ``make_guest`` gives."""

from __future__ import annotations

import itertools
from pathlib import Path

from vbackup.testing.lab import build
from vbackup.testing.lab.domain import Disk, Machine
from vbackup.testing.lab.guest import Guest, copy_disk
from vbackup.testing.lab.libvirtd import Libvirtd

_numbers = itertools.count(1)


class GuestFactory:
    """Makes machines for one test; they end with it."""

    def __init__(self, libvirtd: Libvirtd, directory: Path) -> None:
        self._libvirtd = libvirtd
        self._directory = directory
        self._made: list[Guest] = []

    def __call__(
        self,
        name: str = "",
        *,
        boot: bool = False,
        bootable: bool = False,
        disks: tuple[Disk, ...] = (),
        memory: int | None = None,
        uefi: bool = False,
        tpm: bool = False,
        extra_devices: str = "",
        metadata: str = "",
    ) -> Guest:
        """Define a machine that is off.

        With ``boot`` it is the real guest, its data disk is ``vda`` and ``disks`` come on top; with ``bootable`` that
        which boots from ``vda`` and has its data on ``vdb``; without, it has no
        system, just ``disks`` (one empty qcow2 ``vda`` of 64 MiB if none are given): start it paused, it takes no time.
        """
        name = name or f"guest-{next(_numbers)}"
        place = self._directory / name
        files = None
        if boot:
            files = build.guest_files()
            disks = (Disk("vda", path=copy_disk(files.disk, place / "vda.qcow2")), *disks)
        if bootable:
            own = build.bootable_disks()
            boot_disk = Disk("vda", path=copy_disk(own.boot, place / "vda.qcow2"))
            disks = (boot_disk, Disk("vdb", path=copy_disk(own.data, place / "vdb.qcow2")), *disks)
        machine = Machine(
            name=name,
            directory=place,
            disks=disks or (Disk("vda"),),
            memory=memory or (192 if boot or bootable else 32),
            kernel=files,
            uefi=uefi,
            tpm=tpm,
            extra_devices=extra_devices,
            metadata=metadata,
        )
        guest = Guest.define(self._libvirtd, machine)
        self._made.append(guest)
        return guest

    def adopt(self, name: str) -> Guest:
        """Return a machine that something else has made, such as a restore; it ends with the test as well."""
        guest = Guest(self._libvirtd, name)
        self._made.append(guest)
        return guest

    def remove_all(self) -> None:
        """End them all."""
        for guest in self._made:
            guest.remove()
