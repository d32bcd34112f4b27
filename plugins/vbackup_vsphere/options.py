"""What stands under ``type: vsphere`` in the YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from vbackup.api import Options, SecretRef

Way = Literal["vddk", "datastore", "nfc"]


def _word(value: Any) -> Any:
    # `no` is a text in YAML 1.2 and false in YAML 1.1; both mean what they say.
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class VddkOptions(Options):
    """VMware's VDDK, which everybody downloads for himself, behind nbdkit's plugin ``vddk``."""

    libdir: Path = Field(description="the directory of the unpacked VDDK: the one that has lib64 in it")
    transports: str | None = Field(
        default=None, pattern=r"^[a-z:]+$", description="VDDK's transport modes, such as nbdssl"
    )
    plugin: str = Field(default="vddk", description="nbdkit's plugin: its name, or the path of its .so")


class VsphereOptions(Options):
    """Options of ``type: vsphere``."""

    host: str = Field(min_length=1, description="name or address of a vCenter or of an ESXi host")
    port: int = Field(default=443, ge=1, le=65535, description="where it listens")
    user: str = Field(min_length=1, description="who logs in, as NAME@DOMAIN at a vCenter")
    password: SecretRef = Field(description="of that user")
    ca: Path | None = Field(default=None, description="a PEM file: who may vouch for the host; else the system's")
    thumbprint: str | None = Field(
        default=None,
        pattern=r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){19,63}$",
        description="SHA-1, SHA-256 or SHA-512 of the host's certificate, instead of a CA",
    )
    read: tuple[Way, ...] = Field(
        default=("vddk", "datastore", "nfc"),
        min_length=1,
        description="the ways to read a disk, in the order in which they are tried",
    )
    vddk: VddkOptions | None = Field(default=None, description="where VDDK is, for `read: [vddk]`")
    tracking: Annotated[Literal["yes", "no", "enable"], BeforeValidator(_word)] = Field(
        default="yes",
        description="changed-block tracking: yes (where it is on), no, or enable (switch it on where it is off)",
    )
    per_host: int = Field(default=4, ge=1, description="machines of one ESXi host that are copied at once")
    per_datastore: int = Field(default=4, ge=1, description="machines of one datastore that are copied at once")
    folder: str | None = Field(
        default=None, description="inventory path of the folder for new machines: /DC0/vm/restored"
    )
    pool: str | None = Field(
        default=None, description="inventory path of the cluster, host or resource pool for new machines"
    )
    datastore: str | None = Field(default=None, description="the datastore for disks of new machines")
    networks: dict[str, str] = Field(
        default_factory=dict, description="which network here stands for which of another site: {their: ours}"
    )

    @model_validator(mode="after")
    def _one_way_to_trust(self) -> Self:
        if self.ca is not None and self.thumbprint is not None:
            raise ValueError("give `ca` or `thumbprint`, not both")
        return self
