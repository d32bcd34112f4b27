"""Domain XML, rewritten: for a machine that goes back, and for a new one that must not clash with the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from vbackup_libvirt import document
from vbackup_libvirt.placement import Place

_STALE_IN_DISK = ("backingStore", "mirror", "encryption", "alias", "source", "transient")

ET.register_namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0")
ET.register_namespace("libosinfo", "http://libosinfo.org/xmlns/libvirt/domain/1.0")


def clean(domain: Element) -> None:
    """Remove what only the run in which the machine was captured knew."""
    domain.attrib.pop("id", None)
    for label in [s for s in domain.iterfind("seclabel") if s.get("type") == "dynamic"]:
        domain.remove(label)
    for parent in list(domain.iter()):
        for alias in parent.findall("alias"):
            if not alias.get("name", "").startswith("ua-"):  # those are the user's own
                parent.remove(alias)


def place_disks(
    domain: Element, places: Iterable[Place], exists: Callable[[str], bool], kept: Mapping[str, Element]
) -> list[str]:
    """Point the disks to their places. Returns notes on those that could not be put back as they were.

    ``kept`` are the disks that the machine still has, by key: those that were not captured stay where they are now.
    """
    by_key = {place.key: place for place in places}
    devices = _devices(domain)
    notes: list[str] = []
    for element, disk in zip(devices.findall("disk"), document.disks(domain), strict=True):
        place = by_key.get(disk.key)
        if place is None:
            notes += _not_restored(devices, element, disk, exists, kept.get(disk.key))
            continue
        if not disk.is_local:
            notes.append(f"disk {disk.key} was on {disk.source}; it is at {place.path} now")
        notes += in_clear([disk])
        _move(element, place)
    return notes


def in_clear(disks: Iterable[document.Disk]) -> Iterator[str]:
    """Yield notes on disks that are restored as the guest saw them, though they were encrypted."""
    for disk in disks:
        if disk.encrypted:
            yield f"disk {disk.key} was encrypted, and is restored in clear: its key is not in the restore point"


def _not_restored(
    devices: Element, element: Element, disk: document.Disk, exists: Callable[[str], bool], present: Element | None
) -> Iterator[str]:
    """Settle what becomes of a disk that is not in the restore point."""
    if not document.is_removable(element) and present is not None and present.find("source") is not None:
        _take_place_of(element, present)
        if disk.is_written:
            yield f"disk {disk.key} is not in the restore point; it stays as it is now"
    elif not disk.source or (_is_read_only(element) and disk.is_local and exists(disk.source)):
        return
    elif not document.is_removable(element):
        devices.remove(element)
        yield f"disk {disk.key} ({disk.source}) is not in the restore point; the machine is without it"
    elif present is None or document.source_of(present) != disk.source:
        _remove_all(element, "source")
        yield f"{element.get('device')} {disk.key} is empty: {disk.source} is not here"


def _take_place_of(element: Element, present: Element) -> None:
    """Have a disk be where the present one is, which may have moved since: by a snapshot or a copy."""
    for tag in ("source", "driver", "backingStore", "mirror"):
        _remove_all(element, tag)
    element.set("type", present.get("type", "file"))
    element[:0] = [deepcopy(each) for each in present if each.tag in {"driver", "source"}]


def _is_read_only(element: Element) -> bool:
    return document.is_removable(element) or element.find("readonly") is not None


def _move(element: Element, place: Place) -> None:
    for tag in _STALE_IN_DISK:
        _remove_all(element, tag)
    element.set("type", "block" if place.is_device else "file")
    driver = element.find("driver")
    if driver is None:
        driver = SubElement(element, "driver", name="qemu")
    driver.set("type", place.format)
    SubElement(element, "source", {"dev" if place.is_device else "file": str(place.named)})


def place_nvram(domain: Element, path: PurePosixPath) -> None:
    """Point the firmware's variables to their file."""
    nvram = domain.find("os/nvram")
    if nvram is not None:
        nvram.text = str(path)
        for source in nvram.findall("source"):
            nvram.remove(source)
        nvram.attrib.pop("type", None)


def identify(domain: Element, name: str, uuid: str) -> None:
    """Have the document speak of the machine that is meant: libvirt replaces the one whose UUID it names."""
    _set(domain, "name", name)
    _set(domain, "uuid", uuid)


def make_new(domain: Element, name: str, uuid: str) -> list[str]:
    """Give the machine an identity of its own. Returns notes on what had to change for it."""
    identify(domain, name, uuid)
    for entry in domain.iterfind("sysinfo/system/entry"):
        if entry.get("name") == "uuid":
            entry.text = uuid  # libvirt refuses another one than the machine's
    for genid in domain.findall("genid"):
        genid.text = None  # libvirt makes a new one: the guest learns that it is a copy
    for interface in domain.iterfind("devices/interface"):
        _remove_all(interface, "mac")
        _remove_all(interface, "target")
    for cid in domain.iterfind("devices/vsock/cid"):
        cid.attrib.pop("address", None)
        cid.set("auto", "yes")
    for disk in domain.iterfind("devices/disk"):
        _remove_all(disk, "shareable")
    return [*_own_consoles(domain), *_own_ports(domain)]


def _own_consoles(domain: Element) -> Iterable[str]:
    for channel in domain.iterfind("devices/channel[@type='unix']"):
        _remove_all(channel, "source")  # libvirt makes a path from the machine's name
    for tag in ("serial", "console", "parallel"):
        for console in domain.iterfind(f"devices/{tag}"):
            source = console.find("source")
            if console.get("type") in {"file", "unix"} and source is not None:
                console.set("type", "pty")
                _remove_all(console, "source")
                yield f"its {tag} console is a pty: {source.get('path')} belongs to the machine that it is a copy of"


def _own_ports(domain: Element) -> Iterable[str]:
    for graphics in domain.iterfind("devices/graphics"):
        if graphics.get("autoport") == "no":
            graphics.set("autoport", "yes")
            graphics.attrib.pop("port", None)
            graphics.attrib.pop("tlsPort", None)
            yield f"its {graphics.get('type')} port is chosen by libvirt: the fixed one belongs to the other machine"


def text(domain: Element) -> str:
    """Return the document."""
    return ET.tostring(domain, encoding="unicode")


def _devices(domain: Element) -> Element:
    devices = domain.find("devices")
    return devices if devices is not None else SubElement(domain, "devices")


def _set(domain: Element, tag: str, value: str) -> None:
    element = domain.find(tag)
    (SubElement(domain, tag) if element is None else element).text = value


def _remove_all(element: Element, tag: str) -> None:
    for child in element.findall(tag):
        element.remove(child)
