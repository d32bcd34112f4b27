"""A machine that came from vSphere, as a configuration to be made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vbackup.api import Corrupt, MachineDescription, RestoreDisk
from vbackup_vsphere import document
from vbackup_vsphere.document import Config, Wanted

NVRAM = "nvram"
"""The firmware's variables among a restore point's files."""


def is_native(machine: MachineDescription) -> bool:
    """Whether a machine came from vSphere."""
    return machine.native is not None and machine.native.kind == document.KIND


def convert(machine: MachineDescription, disks: Sequence[RestoreDisk], files: Mapping[str, bytes]) -> Wanted:
    """Return the configuration of ``machine`` with ``disks``. Raises: `Corrupt`."""
    config = document.parse(machine.native.text if machine.native is not None else "")
    known = {str(disk.key): disk for disk in config.disks}
    made = []
    for disk in disks:
        found = known.get(disk.key)
        if found is None or config.controller(found.controller) is None:
            raise Corrupt(f"{machine.name}: its configuration does not tell where disk {disk.key} is plugged in")
        made.append(found.model_copy(update={"size": disk.size}))
    cdroms = tuple(one for one in config.cdroms if config.controller(one.controller) is not None)
    trimmed = config.model_copy(update={"disks": tuple(made), "cdroms": cdroms})
    return Wanted(trimmed, {disk.key: int(disk.key) for disk in disks}, list(_notes(config, disks, files)))


def _notes(config: Config, disks: Sequence[RestoreDisk], files: Mapping[str, bytes]) -> Iterator[str]:
    there = {disk.key for disk in disks}
    for disk in config.disks:
        if str(disk.key) not in there:
            booted = "; the boot order is without it" if f"disk:{disk.key}" in config.boot.order else ""
            yield f"disk {disk.key} ({disk.file}) is not in the restore point{booted}"
    if config.others:
        yield f"the machine is without {', '.join(config.others[:12])}"
    if config.dropped:
        yield f"settings that are not put back: {', '.join(config.dropped[:12])}"
    if config.tpm:
        yield (
            "it has no TPM: a virtual one needs a key provider, and what the old one has sealed asks for its recovery "
            "key; add one to it in vCenter"
        )
    if config.encrypted:
        yield "its disks were encrypted, and are restored in clear: give it an encrypting storage policy"
    if config.efi and NVRAM not in files:
        yield "its firmware variables are not in the restore point: it starts as a new machine does"
