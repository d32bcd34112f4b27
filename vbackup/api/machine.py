"""Our description of a machine: enough to build it on any hypervisor, beside the hypervisor's own document."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
"""A disk's stable key: the target device on libvirt (``vda``), the device key on vSphere, ``disk0`` for images."""


def _not_a_path(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError("'.' and '..' are no names")
    return name


Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\x00-\x1f\x7f]+$"),
    AfterValidator(_not_a_path),
]
"""A machine's name: printable, one path segment at most, and never used as a path without a check all the same."""


class Description(BaseModel):
    """Base of all stored descriptions: frozen; unknown fields of later versions are kept out, not errors."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Firmware(StrEnum):
    """How the machine boots."""

    BIOS = "bios"
    UEFI = "uefi"


class ClockOffset(StrEnum):
    """What the machine's hardware clock shows."""

    UTC = "utc"
    LOCALTIME = "localtime"


class Guest(StrEnum):
    """The family of the guest's operating system, as far as the hypervisor knows it; it decides on devices."""

    LINUX = "linux"
    WINDOWS = "windows"
    UNKNOWN = ""


class DiskDescription(Description):
    """One disk as the hypervisor has it, captured or not."""

    key: Key
    size: int = Field(ge=0, description="bytes")
    format: str = Field(default="raw", max_length=32, description="raw, qcow2, vmdk ... as it was")
    bus: str = Field(default="", max_length=32, description="virtio, sata, scsi, nvme, ide ...")
    controller: str = Field(default="", max_length=32, description="the model behind it: virtio-scsi, pvscsi, lsilogic")
    boot_order: int | None = Field(default=None, ge=0)
    source: str = Field(default="", max_length=4096, description="where it was, for people; never trusted as a path")


class Nic(Description):
    """One network card."""

    mac: str = Field(default="", max_length=64)
    model: str = Field(default="", max_length=64)
    network: str = Field(default="", max_length=255)
    boot_order: int | None = Field(default=None, ge=0)
    connected: bool = True


class NativeDocument(Description):
    """The hypervisor's own document, untouched, so that a machine goes back exactly as it was."""

    kind: str = Field(max_length=64, description="libvirt-domain-xml, vsphere-config ...")
    text: str = Field(max_length=16 << 20)


class MachineDescription(Description):
    """A machine as it was at the moment of a capture."""

    name: Name
    id: str = Field(min_length=1, max_length=255, description="the hypervisor's stable identity (libvirt: the UUID)")
    arch: str = Field(default="x86_64", max_length=32)
    cpus: int = Field(default=1, ge=1)
    cores: int = Field(default=1, ge=1, description="cores of each socket; 1 if the hypervisor was told nothing")
    memory: int = Field(default=0, ge=0, description="bytes")
    firmware: Firmware = Firmware.BIOS
    secure_boot: bool = False
    tpm: bool = False
    clock: ClockOffset = ClockOffset.UTC
    guest: Guest = Guest.UNKNOWN
    drivers: tuple[Annotated[str, StringConstraints(max_length=32)], ...] = Field(
        default=(),
        max_length=32,
        description="device families that the guest is known to boot with (virtio, vmware), here or on another "
        "hypervisor before",
    )
    disks: tuple[DiskDescription, ...] = ()
    nics: tuple[Nic, ...] = ()
    native: NativeDocument | None = None
