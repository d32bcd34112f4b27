"""Reaching a machine: at its own QEMU while it runs, through QEMU's storage daemon while it is off."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from vbackup.api import MachineDescription, Unavailable
from vbackup_qmp.fleece import Fleece
from vbackup_qmp.inventory import Inventory, look, look_off
from vbackup_qmp.monitor import Off, converse
from vbackup_qmp.options import MachineOptions
from vbackup_qmp.programs import storage_daemon, why_not


@dataclass(frozen=True, slots=True)
class Session:
    """A machine that can be talked to, by the QMP monitor at ``socket``."""

    socket: Path
    inventory: Inventory


@contextmanager
def reached(name: str, machine: MachineOptions, fleece: Fleece, state_dir: Path) -> Iterator[Session]:
    """Reach a machine, running or off. Raises: `Off` for one that is off and whose images are not configured."""
    remembered = state_dir / f"machine-{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    try:
        inventory = converse(machine.socket, name, partial(look, name=name))
    except Off as error:
        if not machine.disks:
            hint = "start it, or configure its images as `disks`"
            raise Off(error.message, hint=hint, transient=False) from None
    else:
        remembered.write_text(inventory.description.model_dump_json())
        yield Session(machine.socket, inventory)
        return
    keys = {f"disk-{number}": key for number, key in enumerate(machine.disks)}
    images = {node: machine.disks[key] for node, key in keys.items()}
    with storage_daemon(images, fleece.scratch) as socket:
        talk = partial(look_off, name=name, keys=keys, last=_remembered(remembered))
        try:
            inventory = converse(socket, name, talk)
        except Unavailable as error:
            raise why_not(name, fleece.scratch) from error
        yield Session(socket, inventory)


def _remembered(path: Path) -> MachineDescription | None:
    try:
        return MachineDescription.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
