"""What a host can give to a new machine, as libvirt and QEMU's firmware descriptors tell it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from vbackup.api import NotFound, VBackupError
from vbackup_libvirt.connection import translated
from vbackup_libvirt.node import Node

ARCH = "x86_64"
CHIPSET = "q35"

_DESCRIPTORS = ("/usr/share/qemu/firmware", "/etc/qemu/firmware")
"""What they hold: docs/interop/firmware.json in QEMU's sources. libvirt chooses a firmware by them."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What there is."""

    domain_type: str
    """``kvm``, or ``qemu`` where the processor cannot help."""
    emulator: str
    tpm: bool
    firmwares: frozenset[frozenset[str]]
    """The features (``secure-boot``, ``enrolled-keys``) of each UEFI firmware."""

    @property
    def uefi(self) -> bool:
        """Whether machines can boot by UEFI."""
        return bool(self.firmwares)

    @property
    def secure_boot(self) -> bool:
        """Whether there is UEFI firmware that enforces Secure Boot, with the keys that systems are signed by."""
        return any({"secure-boot", "enrolled-keys"} <= features for features in self.firmwares)


def capabilities(node: Node) -> Capabilities:
    """Ask the host. Raises: `Unsupported` when its QEMU does not run machines of `ARCH`."""
    connection = node.connection.get()
    with translated(f"asking {node.alias} what machines it can run"):
        root = ET.fromstring(connection.getDomainCapabilities(None, ARCH, CHIPSET, None, 0))  # noqa: S314 - of libvirt
    backends = root.iterfind("devices/tpm[@supported='yes']/enum[@name='backendModel']/value")
    return Capabilities(
        domain_type=root.findtext("domain") or "qemu",
        emulator=root.findtext("path") or "",
        tpm="emulator" in {value.text for value in backends},
        firmwares=frozenset(_firmwares(node)) if _has_efi(root) else frozenset(),
    )


def _has_efi(root: Element) -> bool:
    return "efi" in {value.text for value in root.iterfind("os/enum[@name='firmware']/value")}


def _firmwares(node: Node) -> Iterator[frozenset[str]]:
    for directory in _DESCRIPTORS:
        with suppress(NotFound):
            for name in node.host.list_dir(directory):
                with suppress(VBackupError, ValueError):  # libvirt skips what it cannot read as well
                    found = json.loads(node.host.read_file(f"{directory}/{name}"))
                    if _fits(found):
                        yield frozenset(found.get("features", ()))


def _fits(descriptor: dict[str, Any]) -> bool:
    machines = {
        machine
        for target in descriptor.get("targets", ())
        if target.get("architecture") == ARCH
        for machine in target.get("machines", ())
    }
    is_uefi = "uefi" in descriptor.get("interface-types", ())
    return is_uefi and any(fnmatch(f"pc-{CHIPSET}-0", machine) for machine in machines)
