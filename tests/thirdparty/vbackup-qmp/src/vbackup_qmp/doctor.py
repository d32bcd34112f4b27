"""What ``vbackup doctor`` says of this hypervisor."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from vbackup.api import Finding, Level, VBackupError
from vbackup_qmp import scratch
from vbackup_qmp.inventory import OLDEST
from vbackup_qmp.monitor import Monitor, Off, converse
from vbackup_qmp.options import MachineOptions, QmpOptions
from vbackup_qmp.programs import version


def findings(options: QmpOptions) -> Sequence[Finding]:
    """Look at all that is needed."""
    programs = ["qemu-img", "qemu-io"]
    if any(machine.disks for machine in options.machines.values()):
        programs.append("qemu-storage-daemon")  # for those that are off
    return [*map(_program, programs), _scratch(options), *_storage(options), *_machines(options)]


def _program(program: str) -> Finding:
    try:
        return Finding(program, Level.OK, version(program))
    except VBackupError as error:
        return Finding(program, Level.ERROR, error.message, error.hint)


def _scratch(options: QmpOptions) -> Finding:
    what, path = "scratch", options.scratch
    if not os.access(_existing(path), os.W_OK | os.X_OK):
        return Finding(what, Level.ERROR, f"{path} cannot be written to", "set `scratch` to another directory")
    free = scratch.free_bytes(path)
    if free < options.reserve:
        return Finding(what, Level.ERROR, f"{path} has only {free} bytes free", "free space there")
    return Finding(what, Level.OK, f"{path} has {free} bytes free")


def _storage(options: QmpOptions) -> Iterator[Finding]:
    path = options.storage
    if path is None:
        yield Finding("storage", Level.WARNING, "no machine can be restored as a new one", "set `storage`")
    elif not os.access(_existing(path), os.W_OK | os.X_OK):
        yield Finding("storage", Level.ERROR, f"{path} cannot be written to", "set `storage` to another directory")
    else:
        yield Finding("storage", Level.OK, f"{path} can be written to")


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _machines(options: QmpOptions) -> Iterator[Finding]:
    for name, machine in options.machines.items():
        yield _machine(name, machine)


def _machine(name: str, machine: MachineOptions) -> Finding:
    async def ask(monitor: Monitor) -> tuple[int, int, int]:
        return monitor.version

    try:
        found = converse(machine.socket, name, ask)
    except Off:
        if machine.disks:
            return Finding(name, Level.OK, "it is off")
        hint = "start it, or configure its images as `disks`"
        return Finding(name, Level.WARNING, f"it is off: nobody listens at {machine.socket}", hint)
    except VBackupError as error:
        return Finding(name, Level.ERROR, error.message, error.hint)
    dotted = ".".join(map(str, found))
    if found < OLDEST:
        return Finding(name, Level.ERROR, f"its QEMU {dotted} is too old", f"{'.'.join(map(str, OLDEST))} is needed")
    return Finding(name, Level.OK, f"QEMU {dotted} answers")
