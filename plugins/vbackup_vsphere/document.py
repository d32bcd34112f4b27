"""What we keep of a vSphere machine's configuration: JSON of our own, enough to build the machine again.

It is not VMware's ``ConfigInfo``: that has thousands of fields, changes with every release, and names files, hosts and
devices which a restore point must not be able to ask for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from vbackup.api import Corrupt

KIND = "vsphere-config"
"""`vbackup.api.NativeDocument.kind` of these."""

DRIVERS = "vbackup.drivers"
"""A setting of the machine: with which device families the guest booted on another hypervisor, by commas."""

Text = Annotated[str, StringConstraints(max_length=1024)]
DeviceKey = Annotated[int, Field(ge=0, lt=1 << 31)]
Small = Annotated[int, Field(ge=0, lt=1 << 16)]


class Part(BaseModel):
    """Base of what is kept: frozen; unknown fields of later versions are no errors."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Controller(Part):
    """A disk controller."""

    key: DeviceKey
    model: Literal["pvscsi", "lsilogic", "lsisas", "buslogic", "ahci", "ide", "nvme"]
    number: Annotated[int, Field(ge=0, le=3)]
    """Its number on its bus: SCSI 0, SATA 1 ..."""
    slot: Small | None = None
    """Its PCI slot: guests name devices by it."""


class Disk(Part):
    """A ``VirtualDisk``."""

    key: DeviceKey
    controller: DeviceKey
    unit: Small
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    file: str = Field(default="", max_length=4096)
    """For people; never used as a path."""


class Cdrom(Part):
    """A drive; what was in it is not kept."""

    controller: DeviceKey
    unit: Small


class Network(Part):
    """Where a card is plugged in."""

    kind: Literal["standard", "distributed", "opaque"] = "standard"
    name: Text


class Card(Part):
    """A network card."""

    key: DeviceKey
    model: Literal["vmxnet3", "vmxnet2", "vmxnet", "e1000e", "e1000", "pcnet32"]
    mac: Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5})?$")] = ""
    network: Network
    connected: bool = True
    """Whether it is plugged in when the machine starts."""
    slot: Small | None = None


class Boot(Part):
    """The ``bootOptions`` beside Secure Boot."""

    order: tuple[Annotated[str, StringConstraints(pattern=r"^(disk:\d{1,9}|nic:\d{1,9}|cdrom|floppy)$")], ...] = ()
    """Device keys: ``disk:2000``, ``nic:4000``, ``cdrom``. Empty: as the firmware likes."""
    delay: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    """Milliseconds."""
    retry: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    """Milliseconds after which a start that found nothing is tried again; None: it is not."""


class Allocation(Part):
    """A share of the host: ``ResourceAllocationInfo``, in MHz or MiB."""

    reservation: Annotated[int, Field(ge=0)] = 0
    limit: int = -1
    level: Literal["low", "normal", "high", "custom"] = "normal"
    shares: Annotated[int, Field(ge=0, lt=1 << 31)] = 0


class Home(Part):
    """Inventory paths of where the machine was, empty where that is not known."""

    folder: Text = ""
    pool: Text = ""
    datastore: Text = ""
    """The name of the one that its ``.vmx`` was on."""


class Config(Part):
    """A machine's configuration."""

    format: Literal[1] = 1
    uuid: Text = ""
    """The BIOS UUID: what the guest sees."""
    instance_uuid: Text = ""
    guest_id: Text = "otherGuest64"
    guest_name: Text = ""
    version: Annotated[str, StringConstraints(pattern=r"^(vmx-\d{1,3})?$")] = ""
    """The virtual hardware's version; empty: the newest that the host likes."""
    annotation: str = Field(default="", max_length=1 << 20)
    cpus: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    cores: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    memory: Annotated[int, Field(ge=1)] = 4
    """MiB."""
    cpu_hot_add: bool = False
    memory_hot_add: bool = False
    nested: bool = False
    cpu: Allocation = Allocation()
    ram: Allocation = Allocation()
    efi: bool = False
    secure_boot: bool = False
    vbs: bool = False
    iommu: bool = False
    tpm: bool = False
    encrypted: bool = False
    """Whether any of its disks was."""
    boot: Boot = Boot()
    template: bool = False
    tracking: bool = False
    """Whether changed-block tracking was on."""
    controllers: tuple[Controller, ...] = Field(default=(), max_length=64)
    disks: tuple[Disk, ...] = Field(default=(), max_length=1024)
    cdroms: tuple[Cdrom, ...] = Field(default=(), max_length=64)
    cards: tuple[Card, ...] = Field(default=(), max_length=64)
    usb: tuple[Literal["uhci", "xhci"], ...] = Field(default=(), max_length=8)
    others: tuple[Text, ...] = Field(default=(), max_length=256)
    """Labels of devices that are not put back: passed through, serial ports ..."""
    extra: dict[Text, Annotated[str, StringConstraints(max_length=1 << 20)]] = Field(default={}, max_length=4096)
    """The settings (``extraConfig``) that are kept; see `vbackup_vsphere.settings`."""
    dropped: tuple[Text, ...] = Field(default=(), max_length=256)
    """Names of settings that somebody made and that are not kept."""
    home: Home = Home()

    def controller(self, key: int) -> Controller | None:
        """Return the controller of that key."""
        return next((one for one in self.controllers if one.key == key), None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The machine of a restore point as a configuration to be made."""

    config: Config
    """With the disks that are restored, and no others."""
    keys: Mapping[str, int]
    """Which of `Config.disks` is which of the restore point's."""
    notes: Sequence[str]
    """What cannot be as it was."""

    def disk(self, key: str) -> Disk:
        """Return a disk by the restore point's key."""
        return next(disk for disk in self.config.disks if disk.key == self.keys[key])


def parse(text: str) -> Config:
    """Return what `Config.model_dump_json` wrote. Raises: `Corrupt`."""
    try:
        return Config.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Corrupt(f"the machine's vSphere configuration cannot be read: {where}: {first['msg']}") from error
