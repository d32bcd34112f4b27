"""What stands under ``type: qmp``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field

from vbackup.api import Key, Name, Options

_LONGEST = 80


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path, for QEMU is elsewhere")
    return path


Absolute = Annotated[Path, AfterValidator(_absolute)]


def _short(path: Path) -> Path:
    if len(str(path)) > _LONGEST:
        raise ValueError(f"must have {_LONGEST} characters at most, as there are UNIX sockets in it")
    return path


class DiskOptions(Options):
    """An image of a machine."""

    path: Absolute
    format: Literal["qcow2", "raw"] = "qcow2"
    """Never guessed: a guest can write to a raw disk what looks like a qcow2 image of anything on this host."""


class MachineOptions(Options):
    """Where one machine answers."""

    socket: Absolute = Field(description="the UNIX socket of a QMP monitor that nobody else uses")
    agent: Absolute | None = Field(default=None, description="the UNIX socket of the guest agent's port")
    disks: dict[Key, DiskOptions] = Field(
        default={}, description="its images by node-name: to capture it while it is off, and to restore it in its place"
    )


class QmpOptions(Options):
    """Options of ``type: qmp``."""

    machines: dict[Name, MachineOptions] = Field(description="the machines, by name")
    scratch: Annotated[Absolute, AfterValidator(_short)] = Field(
        default=Path("/var/tmp/vbackup-qmp"),
        description="where QEMU keeps what the guest overwrites during a capture; a fast local disk",
    )
    reserve: ByteSize = Field(
        default=ByteSize(1 << 30), description="free space of the scratch disk that is never used: 512MiB, 1GiB ..."
    )
    storage: Absolute | None = Field(default=None, description="where machines are restored to, each to its directory")
