"""Going on from saved memory: which of it fits, and how libvirt is told where the disks are now.

A file of saved memory begins with the domain XML of the run that it was saved in. libvirt lets a machine go on with
another document only if the guest cannot tell the difference, so that one is taken, with the disks in their new places.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from vbackup.api import Corrupt, RestoreRequest
from vbackup_libvirt import document, identity
from vbackup_libvirt.connection import library, translated
from vbackup_libvirt.node import Node
from vbackup_libvirt.placement import Place


def obstacle(request: RestoreRequest, was: str, domain: Element, keys: Collection[str]) -> str | None:
    """Return why a machine cannot go on from its memory, as a phrase.

    ``was`` is the name that it was captured by, ``domain`` what is going to be defined, ``keys`` what is restored.
    """
    if request.name is not None:
        return "a new machine starts afresh, since two cannot go on from one moment"
    if not request.start:
        return "the machine goes on from it only if it is started at once: restore it with --start"
    if (name := domain.findtext("name")) != was:
        return f"libvirt lets {was} go on by that name only, and the machine is called {name} now"
    if missing := [disk.key for disk in document.disks(domain) if disk.is_written and disk.key not in keys]:
        return f"it goes with all the disks of its moment, and {', '.join(missing)} is not restored"
    return None


def go_on(node: Node, name: str, uuid: str, places: Sequence[Place], nvram: str, path: PurePosixPath) -> None:
    """Start a machine, which is defined, from the memory at ``path``. ``nvram`` is where its firmware's variables are.

    Raises: `Corrupt` when it is another machine's memory: libvirt would start that one; `VBackupError`. Then it is off.
    """
    libvirt, connection = library(), node.connection.get()
    with translated(f"{name}: reading its memory"):
        text = connection.saveImageGetXMLDesc(str(path), libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE)
    saved = document.parse(text)
    if (found := (saved.findtext("name"), saved.findtext("uuid"))) != (name, uuid):
        raise Corrupt(f"{name}: the memory is that of another machine: {found[0]} with the UUID {found[1]}")
    identity.clean(saved)
    identity.place_disks(saved, places, node.host.exists, {})
    if nvram:
        identity.place_nvram(saved, PurePosixPath(nvram))
    with translated(f"{name}: going on from its memory"):
        connection.restoreFlags(str(path), identity.text(saved), libvirt.VIR_DOMAIN_SAVE_RUNNING)
