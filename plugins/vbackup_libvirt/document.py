"""Domain XML, read: which disks a machine has and what it is made of.

The format: https://libvirt.org/formatdomain.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from vbackup.api import Corrupt, Unsupported

KIND = "libvirt-domain-xml"

_LOCAL = {"file", "block"}
_READABLE = {*_LOCAL, "network", "volume"}
_MEMORY_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 10**3,
    "KiB": 1 << 10,
    "k": 1 << 10,
    "MB": 10**6,
    "MiB": 1 << 20,
    "M": 1 << 20,
}
_MEMORY_UNITS |= {"GB": 10**9, "GiB": 1 << 30, "G": 1 << 30, "TB": 10**12, "TiB": 1 << 40, "T": 1 << 40}


@dataclass(frozen=True, slots=True)
class Disk:
    """One ``<disk>``."""

    key: str
    kind: str
    """``file``, ``block``, ``network``, ``volume`` ..."""
    source: str
    """The path, or for people: ``rbd:pool/image``."""
    format: str
    bus: str
    left_out: str | None
    """Why it is not captured, as a phrase."""
    boot_order: int | None
    encrypted: bool
    shareable: bool
    controller: str = ""
    """The model of the SCSI controller that it is on: ``virtio-scsi``, ``lsilogic``."""
    in_io_thread: bool = False
    """Whether QEMU serves it to the guest in a thread of its own."""
    is_drive: bool = False
    """Whether it is but a drive: for CDs, or for floppies that hold nothing of the guest's."""
    is_written: bool = True
    """Whether the guest can write to it: then what is on it and in the guest's memory go together."""

    @property
    def is_local(self) -> bool:
        """Whether `source` is a path on the host."""
        return self.kind in _LOCAL


def parse(text: str) -> Element:
    """Return the ``<domain>``. Raises: `Corrupt` for anything else; entities are refused."""
    if re.search(r"<!(?!--|\[CDATA\[)", text):
        raise Corrupt("the machine's domain XML holds a document type, which libvirt never writes")
    try:
        root = ET.fromstring(text)  # noqa: S314 - document types were refused above
    except ET.ParseError as error:
        raise Corrupt(f"the machine's domain XML cannot be read: {error}") from error
    if root.tag != "domain":
        raise Corrupt(f"the machine's domain XML is a <{root.tag[:40]}>")
    return root


def disks(domain: Element) -> list[Disk]:
    """Return all disks, in the document's order."""
    scsi = {
        element.get("index", "0"): _Controller(element.get("model", ""), _in_io_thread(element))
        for element in domain.iterfind("devices/controller[@type='scsi']")
    }
    return [_disk(element, scsi) for element in domain.iterfind("devices/disk")]


def is_removable(element: Element) -> bool:
    """Whether a ``<disk>`` is a drive for media."""
    return element.get("device") in {"cdrom", "floppy"}


def _is_drive(element: Element) -> bool:
    is_empty = element.find("source") is None or element.find("readonly") is not None
    return element.get("device") == "cdrom" or (element.get("device") == "floppy" and is_empty)


def source_of(element: Element) -> str:
    """Return where a ``<disk>`` is, empty when it is nowhere; see `source_name`."""
    source = element.find("source")
    return "" if source is None else source_name(element.get("type", "file"), source)


def disk_key(element: Element) -> str:
    """Return the key of a ``<disk>``: its target device."""
    return attribute(element, "target", "dev")


class _Controller(NamedTuple):
    model: str
    in_io_thread: bool


def _disk(element: Element, scsi: Mapping[str, _Controller]) -> Disk:
    kind = element.get("type", "file")
    is_scsi = attribute(element, "target", "bus") == "scsi"
    controller = scsi.get(attribute(element, "address", "controller") or "0") if is_scsi else None
    source = element.find("source")
    order = attribute(element, "boot", "order")
    return Disk(
        key=disk_key(element),
        kind=kind,
        source=source_of(element),
        format=attribute(element, "driver", "type") or "raw",
        bus=attribute(element, "target", "bus"),
        left_out=_left_out(element, kind, source),
        boot_order=int(order) if order else None,
        encrypted=any(True for _ in element.iter("encryption")),
        shareable=element.find("shareable") is not None,
        controller="" if controller is None else _scsi_model(controller),
        in_io_thread=_in_io_thread(element) or (controller is not None and controller.in_io_thread),
        is_drive=_is_drive(element),
        is_written=_is_written(element),
    )


def _scsi_model(controller: _Controller) -> str:
    # libvirt's word for the controller that is a virtio device; QEMU's default is another one for each architecture.
    return "virtio-scsi" if controller.model.startswith("virtio") else controller.model


def _in_io_thread(element: Element) -> bool:
    driver = element.find("driver")
    return driver is not None and (driver.get("iothread") is not None or driver.find("iothreads") is not None)


def _is_written(element: Element) -> bool:
    fixed = element.get("device", "disk") not in {"disk", "lun"} or element.find("readonly") is not None
    return not fixed and element.find("source") is not None


def _left_out(element: Element, kind: str, source: Element | None) -> str | None:
    device = element.get("device", "disk")
    if device != "disk":
        return "a SCSI LUN is passed through to the guest" if device == "lun" else f"it is a {device}"
    if source is None or not source_name(kind, source):
        return "it has no source"
    if kind not in _READABLE:
        return f"QEMU cannot back up a disk of type {kind}"
    if element.find("readonly") is not None:
        return "it is read-only"
    if element.find("transient") is not None:
        return "it is transient: its changes are thrown away"
    return None


def source_name(kind: str, source: Element) -> str:
    """Return where a disk is: a path, or a name for people."""
    if kind == "network":
        host = source.find("host")
        where = "" if host is None else host.get("name") or host.get("socket") or ""
        return f"{source.get('protocol', '')}:{where}/{source.get('name', '')}"
    if kind == "volume":
        return f"{source.get('pool', '')}/{source.get('volume', '')}"
    return source.get("file") or source.get("dev") or ""


def others_left_out(domain: Element) -> Iterator[str]:
    """Yield, as phrases, storage of the guest that is no ``<disk>``."""
    for element in domain.iterfind("devices/hostdev"):
        yield f"a {element.get('type', 'host')} device is passed through to the guest and not captured"
    for element in domain.iterfind("devices/filesystem"):
        yield f"the shared directory {attribute(element, 'source', 'dir')} is not captured"


def paths(domain: Element) -> set[str]:
    """Return all absolute paths that a document names, whatever for: disks, images below them, firmware, kernels."""
    texts = {text for element in domain.iter() for text in (*element.attrib.values(), (element.text or "").strip())}
    return {text for text in texts if text.startswith("/")}


def nvram(domain: Element) -> str:
    """Return the path of the firmware's variables, empty when there are none."""
    return (domain.findtext("os/nvram") or "").strip()


def tpm_version(domain: Element) -> str | None:
    """Return the version of an emulated TPM (``2.0``), None without one."""
    for backend in domain.iterfind("devices/tpm/backend"):
        if backend.get("type") == "emulator":
            return backend.get("version", "2.0")
    return None


def qemu_owner(domain: Element) -> tuple[int, int] | None:
    """Return the (uid, gid) that a running machine's QEMU has, from libvirt's DAC label; None when it has none."""
    for label in domain.iterfind("seclabel"):
        if label.get("model") == "dac":
            user, _, group = (label.findtext("label") or "").partition(":")
            if user.lstrip("+").isdigit() and group.lstrip("+").isdigit():
                return int(user.lstrip("+")), int(group.lstrip("+"))
    return None


def has_agent(domain: Element) -> bool:
    """Whether there is a channel for the guest agent."""
    return any(target.get("name") == "org.qemu.guest_agent.0" for target in domain.iterfind("devices/channel/target"))


def checkpoint_description(text: str) -> str:
    """Return the description in a checkpoint's XML."""
    return ET.fromstring(text).findtext("description") or ""  # noqa: S314 - libvirt wrote it


def checkpoint_disks(text: str) -> set[str]:
    """Return the keys of the disks that have a bitmap by a checkpoint's XML."""
    disks = ET.fromstring(text).iterfind("disks/disk[@checkpoint='bitmap']")  # noqa: S314 - libvirt wrote it
    return {disk.get("name", "") for disk in disks}


def pool_directory(text: str) -> str:
    """Return the directory of a storage pool from its XML, empty for one that has none."""
    pool = ET.fromstring(text)  # noqa: S314 - libvirt wrote it
    return (pool.findtext("target/path") or "") if pool.get("type") in {"dir", "fs", "netfs"} else ""


def memory(domain: Element) -> int:
    """Return the memory in bytes."""
    element = domain.find("memory")
    if element is None or not (element.text or "").strip().isdigit():
        return 0
    unit = element.get("unit", "KiB")
    if unit not in _MEMORY_UNITS:
        raise Unsupported(f"the machine's memory is in {unit[:20]}")
    return int(element.text or 0) * _MEMORY_UNITS[unit]


def attribute(element: Element, path: str, name: str) -> str:
    """Return an attribute of the first element at ``path``, empty when either is missing."""
    found = element.find(path)
    return "" if found is None else found.get(name, "")
