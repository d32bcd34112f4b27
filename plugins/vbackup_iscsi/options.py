"""What stands under ``type: iscsi``, and where an attachment lives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from vbackup.api import Options, SecretRef

_IQN = r"^(iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.-]+(:[a-z0-9.:_-]+)?|eui\.[0-9a-f]{16}|naa\.[0-9a-f]{16,32})$"
"""RFC 7143, 4.2.7, after stringprep."""
_PORTAL = r"^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$"
RUNTIME = Path("/run/vbackup/iscsi")


def own_initiator() -> str:
    """Return an IQN of this host. Not the machine-id itself, which machine-id(5) asks to keep private."""
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        identity = Path("/etc/hostname").read_text().strip() if Path("/etc/hostname").exists() else ""
    digest = hashlib.blake2b(identity.encode(), digest_size=8, person=b"vbackup-iscsi").hexdigest()
    return f"iqn.2026-01.org.vbackup:{digest}"


class Chap(Options):
    """How we prove to the target who we are (RFC 7143, 12.1.3)."""

    user: str = Field(min_length=1, max_length=255, pattern=r"^[ -~]+$", description="the CHAP name")
    password: SecretRef = Field(description="the CHAP secret; most targets want 12 to 16 characters")


class IscsiOptions(Options):
    """Options of ``type: iscsi``."""

    portal: str = Field(
        pattern=_PORTAL, description="host, host:port or [IPv6]:port of the target; port 3260 if left out"
    )
    target: str = Field(pattern=_IQN, max_length=223, description="the name of the target (IQN)")
    lun: int = Field(ge=0, le=16383, description="the number of the LUN; vbackup needs all of it")
    chap: Chap | None = Field(default=None, description="credentials; none for a target that asks for none")
    initiator: str = Field(
        default_factory=own_initiator,
        pattern=_IQN,
        max_length=223,
        description="our name (IQN); made from the machine-id if left out",
    )
    client: Literal["auto", "kernel", "userspace"] = Field(
        default="auto", description="the kernel's initiator (open-iscsi), or qemu-storage-daemon's"
    )

    @field_validator("portal")
    @classmethod
    def _with_port(cls, portal: str) -> str:
        return portal if portal.rpartition(":")[2].isdigit() and not portal.endswith("]") else f"{portal}:3260"

    @property
    def place(self) -> str:
        """Name the LUN, as messages do."""
        return f"LUN {self.lun} of {self.target} at {self.portal}"

    @property
    def digest(self) -> str:
        """A name for the LUN that is short, safe as a file name, and the same in every process."""
        return hashlib.blake2b(f"{self.portal} {self.target} {self.lun}".encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds. A host that is not heard of for ``takeover`` has long given up by itself."""

    renew: float = 5
    """The owner counts up its record this often."""
    lease: float = 45
    """An owner that could not for so long cuts itself off."""
    takeover: float = 100
    """A record that stands still for so long may be taken: `lease`, `unacknowledged`, and a margin for clocks."""
    settle: float = 2
    """After writing the record it is read again this much later: see `vbackup_iscsi.lease`."""
    connect: float = 30
    """A target that has not let us in by then is not available."""
    unacknowledged: float = 20
    """What a connection has sent and was not acknowledged for so long is thrown away by our kernel."""
