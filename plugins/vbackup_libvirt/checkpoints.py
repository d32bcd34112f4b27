"""Our checkpoints in libvirt: named, found, made valid again and removed.

A checkpoint is metadata in libvirt and a dirty bitmap of the same name in each qcow2 disk. The bitmaps are what
counts; the metadata gets lost in migrations, when a machine is defined anew, or with libvirt's state directory, and is
then written again from what is there (``VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE``). Each bitmap records by itself all
that was written since it was made, so checkpoints may be removed in any order.

https://libvirt.org/formatcheckpoint.html
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element, SubElement

from vbackup.api import Busy, Unavailable, VBackupError
from vbackup.api.clock import now
from vbackup_libvirt import document
from vbackup_libvirt.connection import library, translated
from vbackup_libvirt.node import Machine
from vbackup_qemu import image
from vbackup_undo.maker import Maker

STRANGER_DIES = timedelta(days=1)
"""After this time a checkpoint of a process on another host, whose end we cannot see, counts as left behind."""

_NAME = re.compile(r"vbackup-[0-9a-f]{8}-[0-9a-f]{8}")


def prefix(owner: str) -> str:
    """Return what the names of an owner's checkpoints, and of nobody else's, begin with."""
    return f"vbackup-{owner[:8]}-"


def new_name(owner: str) -> str:
    """Return a name that never was."""
    return prefix(owner) + secrets.token_hex(4)


def is_ours(name: str, owner: str) -> bool:
    """Whether a checkpoint or bitmap of that name belongs to ``owner``."""
    return name.startswith(prefix(owner)) and _NAME.fullmatch(name) is not None


def is_anyones(name: str) -> bool:
    """Whether a checkpoint of that name was made by vbackup, for whatever repository."""
    return _NAME.fullmatch(name) is not None


def describe(name: str, maker: Maker, keys: Iterable[str], tracked: Collection[str]) -> Element:
    """Return the XML of a checkpoint of a machine that has the disks ``keys``, with bitmaps on those ``tracked``."""
    root = Element("domaincheckpoint")
    SubElement(root, "name").text = name
    SubElement(root, "description").text = maker.model_dump_json()
    disks = SubElement(root, "disks")
    for key in keys:
        disk = SubElement(disks, "disk", name=key, checkpoint="no")
        if key in tracked:
            disk.attrib |= {"checkpoint": "bitmap", "bitmap": name}
    return root


def define_again(machine: Machine, name: str, maker: Maker, tracked: Collection[str], *, validate: bool) -> None:
    """Write the metadata of a checkpoint whose bitmaps are there. ``validate`` needs a running machine.

    Raises: `VBackupError` when a bitmap is missing or inconsistent.
    """
    domain = machine.xml()
    root = describe(name, maker, (disk.key for disk in document.disks(domain)), tracked)
    SubElement(root, "creationTime").text = str(maker.created)
    root.append(domain)
    flags = library().VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
    if validate:
        flags |= library().VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
    text = ET.tostring(root, encoding="unicode")
    machine.ask(f"defining the checkpoint {name}", lambda domain: domain.checkpointCreateXML(text, flags))


def make_valid(machine: Machine, name: str, maker: Maker, keys: Collection[str]) -> dict[str, str]:
    """See to it that a running machine can be backed up from the checkpoint ``name`` for the disks ``keys``.

    Returns the disks for which it cannot, with reasons; what is left of their bitmaps is removed.
    """
    if not keys or _is_valid(machine, name, maker, keys) is None:
        return {}
    broken = {key: reason for key in keys if (reason := _is_valid(machine, name, maker, [key])) is not None}
    for key in broken:
        _discard_bitmap(machine, name, maker, key)
    if good := set(keys) - set(broken):
        define_again(machine, name, maker, good, validate=True)
    return broken


def _is_valid(machine: Machine, name: str, maker: Maker, keys: Collection[str]) -> str | None:
    try:
        define_again(machine, name, maker, keys, validate=True)
    except (Unavailable, Busy):
        raise
    except VBackupError:
        return "its bitmap is missing or inconsistent: QEMU was killed, or the disk was replaced"
    return None


def discard(machine: Machine, name: str, keys: Iterable[str]) -> None:
    """Remove a checkpoint of a running machine: its metadata and its bitmaps on the disks ``keys``, if there.

    libvirt removes nothing when one of the bitmaps is missing; so if need be they are removed one by one, each
    through a checkpoint of that disk alone. That reaches inconsistent bitmaps and those without metadata too.
    """
    gone = _delete(machine, name) or set()  # its metadata may name fewer disks than have the bitmap
    maker = Maker.here("", int(now().timestamp()))
    for key in set(keys) - gone:
        _discard_bitmap(machine, name, maker, key)


def _discard_bitmap(machine: Machine, name: str, maker: Maker, key: str) -> None:
    try:
        define_again(machine, name, maker, [key], validate=False)
    except (Unavailable, Busy):
        raise
    except VBackupError:
        return  # a disk that cannot have a bitmap
    if _delete(machine, name) is None:
        forget(machine, name)


def _delete(machine: Machine, name: str) -> set[str] | None:
    """Return the disks from which libvirt removed the checkpoint's bitmaps, None when it removed nothing."""

    def remove(domain: Any) -> set[str]:
        checkpoint = domain.checkpointLookupByName(name)
        named = document.checkpoint_disks(checkpoint.getXMLDesc(_no_domain()))
        checkpoint.delete(0)
        return named

    try:
        return machine.ask(f"deleting the checkpoint {name}", remove)
    except (Unavailable, Busy):
        raise
    except VBackupError:
        return None


def forget(machine: Machine, name: str) -> None:
    """Remove a checkpoint's metadata alone, if it is there."""
    flag = library().VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY
    if name in defined(machine):
        machine.ask(f"forgetting the checkpoint {name}", lambda d: d.checkpointLookupByName(name).delete(flag))


def discard_stopped(machine: Machine, name: str, paths: Iterable[str]) -> None:
    """Remove a checkpoint of a machine that is off: the bitmaps from its qcow2 images, then the metadata.

    Raises: `Busy` when somebody has an image open, as when the machine was started meanwhile.
    """
    for path in paths:
        if name in image.info(machine.node.host, path, "qcow2").bitmaps:
            image.remove_bitmap(machine.node.host, path, name)
    forget(machine, name)


def defined(machine: Machine) -> Mapping[str, Maker | None]:
    """Return all checkpoints that libvirt knows, and who made them where that can be told."""
    with translated(f"{machine.name}: listing its checkpoints"):
        found = {
            checkpoint.getName(): document.checkpoint_description(checkpoint.getXMLDesc(_no_domain()))
            for checkpoint in machine.domain.listAllCheckpoints()
        }
    return {name: Maker.parse(text) for name, text in found.items()}


def _no_domain() -> int:
    return int(library().VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN)


def orphans(machine: Machine, owner: str, keep: str | None, bitmaps: Iterable[str]) -> list[str]:
    """Return the owner's checkpoints that nobody needs: not ``keep``, and their makers are dead.

    ``bitmaps`` are the names seen in the images; those without metadata count as well.
    """
    known = defined(machine)
    names = {name for name in {*known, *bitmaps} if is_ours(name, owner) and name != keep}
    return sorted(name for name in names if _is_left_behind(known.get(name)))


def superseded(machine: Machine, owner: str, name: str, created: int, bitmaps: Iterable[str]) -> list[str]:
    """Return the owner's checkpoints that ``name``, of a point that is durable now, makes superfluous."""
    known = defined(machine)
    names = {other for other in {*known, *bitmaps} if is_ours(other, owner) and other != name}
    return sorted(
        other
        for other in names
        if (maker := known.get(other)) is None or maker.created <= created or _is_left_behind(maker)
    )


def _is_left_behind(maker: Maker | None) -> bool:
    """Whether the maker is dead. We are not at work on a machine whose journal we hold, so we count as dead."""
    if maker is None or maker.is_dead() or maker.is_this():
        return True
    return not maker.is_here() and now().timestamp() - maker.created > STRANGER_DIES.total_seconds()
