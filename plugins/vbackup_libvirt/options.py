"""What stands under ``type: libvirt`` in the YAML."""

from __future__ import annotations

from pathlib import PurePosixPath

from pydantic import Field

from vbackup.api import Options


class LibvirtOptions(Options):
    """Options of ``type: libvirt``. Paths are those of the host that libvirt runs on."""

    uri: str = Field(default="qemu:///system", description="libvirt's URI; qemu over a unix socket or over ssh")
    scratch: PurePosixPath | None = Field(
        default=None,
        description="where QEMU keeps what guests overwrite during a backup; "
        "default /var/lib/libvirt/qemu/vbackup, for qemu:///session a directory below XDG_STATE_HOME",
    )
    scratch_reserve: int = Field(default=1 << 30, ge=0, description="bytes that must stay free there")
    storage: PurePosixPath = Field(
        default=PurePosixPath("/var/lib/libvirt/images"), description="where disks of new machines are made"
    )
    networks: dict[str, str] = Field(
        default_factory=dict,
        description="for machines of other hypervisors: the network here (or bridge:NAME) for each of theirs",
    )
    freeze_timeout: int = Field(default=30, ge=1, description="seconds that a guest may stay frozen at most")
    pause_timeout: int = Field(
        default=300, ge=1, description="seconds that a machine may be paused at most while its memory is saved"
    )
    agent_timeout: int = Field(default=10, ge=1, description="seconds that the guest agent may take for an answer")
