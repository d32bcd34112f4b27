"""Which initiator is used, and what each must do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from vbackup_iscsi.kernel import Kernel
from vbackup_iscsi.order import Order
from vbackup_iscsi.programs import attempt
from vbackup_iscsi.userspace import INITIATOR, Userspace

_TRANSPORT = Path("/sys/class/iscsi_transport/tcp")


class Initiator(Protocol):
    """A LUN that is attached to this host."""

    def attach(self) -> Path:
        """Attach it, and return the file or block device that it is.

        Raises: `AccessDenied`, `Unavailable`, `Unsupported`. What was done until then is undone by `detach`.
        """

    def endings(self) -> Sequence[int]:
        """Return descriptors of which one becomes readable when the attachment has ended by itself."""

    @property
    def process(self) -> int:
        """The process that is connected to the target; 0 where it is the kernel."""

    def is_connected(self) -> bool:
        """Whether the connection to the target is the one that it began with, as far as can be seen."""

    def beat(self) -> None:
        """To be called at least once in the time of a lease: else `kill`, by somebody else. Any thread."""

    def kill(self) -> None:
        """Let nothing of ours reach the LUN from now on. Any thread, any time; does not wait."""

    def detach(self) -> None:
        """Undo `attach`, as far as it came."""


def make(order: Order, directory: Path, lock: int) -> Initiator:
    """Return the initiator to use; ``lock`` is a descriptor that its processes hold open."""
    if choose(order.client)[0] == "kernel":
        return Kernel(order, directory)
    return Userspace(order, directory, lock)


def choose(client: str) -> tuple[str, str]:
    """Return "kernel" or "userspace" for the option ``client``, and why."""
    if client != "auto":
        return client, "as configured"
    if shutil.which("iscsiadm") is None:
        return "userspace", f"{INITIATOR}: there is no iscsiadm (open-iscsi)"
    if not _TRANSPORT.exists() and (shutil.which("modprobe") is None or attempt("modprobe", "iscsi_tcp").returncode):
        return "userspace", f"{INITIATOR}: the kernel has no module iscsi_tcp"
    return "kernel", "iscsiadm and the kernel's iscsi_tcp are there"
