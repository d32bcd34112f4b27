"""virt-v2v-in-place: gives a system that knows only another hypervisor's devices the drivers for KVM.

It is run on overlays over the restored disks, which take over what it did only if it succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import PurePosixPath
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

from vbackup.api import VBackupError
from vbackup_libvirt.placement import Place
from vbackup_qemu.host import Host

PROGRAM = "virt-v2v-in-place"

_HAS_VIRTIO = "This guest has virtio drivers installed"
"""What it says when it has seen to that (virt-v2v, convert/convert.ml)."""


def is_there(host: Host) -> bool:
    """Whether the program is installed."""
    return host.run(["sh", "-c", f"command -v {PROGRAM}"], check=False).returncode == 0


def overlay(place: Place) -> PurePosixPath:
    """Return where the overlay over a disk is while the program runs."""
    return place.temporary.with_name(f"{place.temporary.name}.v2v")


def convert(host: Host, domain: Element, places: Sequence[Place], document: PurePosixPath) -> tuple[bool, str]:
    """Convert the disks at their temporary places; ``domain`` describes the machine, ``document`` is a free path.

    Returns whether the system has virtio drivers now, and a note.
    """
    try:
        said = _run(host, domain, places, document)
    except VBackupError as error:
        return False, f"{PROGRAM} failed, and has changed nothing: {error.message[:500]}"
    else:
        for place in places:
            host.run(["qemu-img", "commit", "-q", "-f", "qcow2", "--", str(overlay(place))])
    finally:
        for place in places:
            host.remove_tree(str(overlay(place)))
    if _HAS_VIRTIO in said:
        return True, f"{PROGRAM} has given its system virtio drivers"
    return False, f"{PROGRAM} had no virtio drivers for its system, which keeps SATA disks"


def _run(host: Host, domain: Element, places: Sequence[Place], document: PurePosixPath) -> str:
    for place in places:
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", place.format, "-b", str(place.temporary), "--"]
        host.run([*argv, str(overlay(place))])
    host.write_file(str(document), ET.tostring(_on_overlays(domain, places)))
    # direct: not by a libvirt, whose QEMU may not be allowed to read the files
    argv = ["env", "LIBGUESTFS_BACKEND=direct", PROGRAM, "-i", "libvirtxml", str(document)]
    return host.run(argv).stdout.decode(errors="replace")


def _on_overlays(domain: Element, places: Sequence[Place]) -> Element:
    copy = deepcopy(domain)
    for element, place in zip(copy.findall("devices/disk"), places, strict=True):
        for driver in element.findall("driver"):
            driver.set("type", "qcow2")
        for source in element.findall("source"):
            source.set("file", str(overlay(place)))
    return copy
