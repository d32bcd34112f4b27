"""Putting a machine back: over itself, as a new one, or just some of its disks.

Everything is written beside its place and renamed at the end; the machine is defined last. What is made is journaled
before, and removed if the restore does not get to its end.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from vbackup.api import (
    AlreadyExists,
    Busy,
    MachineDescription,
    NotFound,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    SinkDisk,
    VBackupError,
)
from vbackup_libvirt import checkpoints, identity, state
from vbackup_libvirt.connection import translated
from vbackup_libvirt.goal import Goal, decide
from vbackup_libvirt.journal import Journal, RestoreEntry
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.placement import Place
from vbackup_qemu import image
from vbackup_qemu.sink import ImageSink


@contextmanager
def restore(
    node: Node,
    machine: MachineDescription,
    disks: Sequence[RestoreDisk],
    files: Mapping[str, bytes],
    request: RestoreRequest,
) -> Iterator[Restoration]:
    """See `vbackup.api.Hypervisor.restore`."""
    token = secrets.token_hex(4)
    sockets = node.scratch / f"restore-{token}"
    name = hashlib.sha256((request.name or machine.name).encode()).hexdigest()[:16]
    with node.restores.open(name) as journal:
        undo(node, journal)  # what a dead restore left must not be taken for somebody's
        goal = decide(node, machine, disks, files, request, token)
        temporary = [str(place.temporary) for place in goal.places if not place.is_device]
        entry = RestoreEntry(machine=goal.name, uuid=goal.uuid, temporary=(*temporary, str(sockets)))
        journal.write(entry)
        try:
            node.host.make_private_dir(str(sockets))
            for place in goal.places:
                if not place.is_device:
                    image.create(node.host, str(place.temporary), place.format, place.size)
            yield OpenRestoration(node, goal, request, journal, entry, sockets)
        finally:
            with suppress(VBackupError):  # then the journal stays, for a sweep
                undo(node, journal)


def undo(node: Node, journal: Journal[RestoreEntry]) -> list[str]:
    """Remove what a restore made, unless its machine was defined and so has it now."""
    entry = journal.entry
    if entry is None:
        return []
    made = () if entry.made and entry.uuid and _is_defined(node, entry.uuid) else entry.made
    for path in (*entry.temporary, *made):
        node.host.remove_tree(path)
    journal.clear()
    return [f"removed what a restore of {entry.machine} had left"]


def _is_defined(node: Node, uuid: str) -> bool:
    try:
        node.connection.patiently(lambda: node.connection.domain(uuid))
    except NotFound:
        return False
    return True


def _forget(machine: Machine) -> Iterator[str]:
    """Have libvirt forget what belonged to the images that are replaced; yields notes."""
    for name in checkpoints.defined(machine):
        if checkpoints.is_anyones(name):
            checkpoints.forget(machine, name)
        else:
            yield f"the checkpoint {name} is not ours, and has lost its bitmaps"
    if machine.has_internal_snapshots:
        yield "its internal snapshots were in the images that are replaced, and are lost"
    if machine.ask("looking for its saved memory", lambda domain: domain.hasManagedSaveImage(0)):
        # Memory that goes on with other disks than it was saved with destroys their file systems.
        machine.ask("removing its saved memory", lambda domain: domain.managedSaveRemove(0))
        yield "its saved memory did not belong to these disks, and was removed"


class OpenRestoration:
    """A `Restoration`."""

    def __init__(
        self,
        node: Node,
        goal: Goal,
        request: RestoreRequest,
        journal: Journal[RestoreEntry],
        entry: RestoreEntry,
        sockets: PurePosixPath,
    ) -> None:
        self._node = node
        self._goal = goal
        self._request = request
        self._journal = journal
        self._entry = entry
        self.disks: Mapping[str, SinkDisk] = {
            place.key: ImageSink(
                node.host,
                Path(place.temporary),
                place.format,
                place.size,
                zeroed=not place.is_device,
                sockets=Path(sockets),
                label=f"{goal.name} disk {place.key}",
            )
            for place in goal.places
        }

    @property
    def notes(self) -> Sequence[str]:
        """See `Restoration.notes`."""
        return self._goal.notes

    def finish(self) -> str:
        """See `Restoration.finish`."""
        goal = self._goal
        files = [place for place in goal.places if not place.is_device]
        if goal.existing is not None and goal.existing.is_active:
            raise Busy(f"the machine {goal.name} was started meanwhile", hint="switch it off first", transient=False)
        made = [str(place.path) for place in files if not place.replaces]
        made += [str(path) for path in goal.files if not self._node.host.exists(str(path))]
        self._own(made)
        for place in files:
            self._put(place, made)
        if goal.domain is None:
            # The disks are what was asked for: they are not to be removed any more.
            self._own([])
            return "wrote " + ", ".join(f"disk {place.key} to {place.path}" for place in goal.places)
        state.write(self._node.host, goal.files)
        if goal.existing is not None:
            goal.notes.extend(_forget(goal.existing))
        self._define(goal.domain)
        self._own([])  # what was made belongs to the machine now
        return self._start()

    def _own(self, made: Sequence[str]) -> None:
        """Journal which files are to be removed if the machine is never defined."""
        self._journal.write(self._entry.model_copy(update={"made": tuple(made)}))

    def _put(self, place: Place, made: Sequence[str]) -> None:
        host, temporary, path = self._node.host, str(place.temporary), str(place.path)
        if place.replaces:
            host.run(["chown", f"--reference={path}", "--", temporary])
            host.run(["chmod", f"--reference={path}", "--", temporary])
            host.run(["mv", "-T", "--", temporary, path])
        else:
            host.run(["mv", "-nT", "--", temporary, path])
            if host.exists(temporary):
                self._own([other for other in made if other != path])
                raise AlreadyExists(f"disk {place.key}: somebody made {path} meanwhile")
        host.run(["sync", "--", str(place.path.parent)])

    def _define(self, domain: Element) -> None:
        connection = self._node.connection.get()
        with translated(f"defining the machine {self._goal.name}"):
            connection.defineXML(identity.text(domain))

    def _start(self) -> str:
        goal = self._goal
        said = f"the machine {goal.name} is defined"
        if not self._request.start:
            return said
        try:
            Machine(self._node, goal.name, goal.uuid).ask("starting it", lambda domain: domain.create())
        except VBackupError as error:
            goal.notes.append(f"it could not be started: {error}")
            return f"{said}, but could not be started"
        return f"{said} and running"
