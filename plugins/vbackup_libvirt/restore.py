"""Putting a machine back: over itself, as a new one, or just some of its disks.

Everything is written beside its place and renamed at the end. A new machine is defined last, so that nothing half-done
can be started; one that is overwritten is defined first, so that libvirt has seen the document before a disk is
replaced. What is done is journaled before, and undone if the restore does not get to its end: the old disks too.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

from vbackup.api import (
    Busy,
    MachineDescription,
    NotFound,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    SinkDisk,
    VBackupError,
)
from vbackup_libvirt import checkpoints, identity, state, swap
from vbackup_libvirt.connection import translated
from vbackup_libvirt.goal import Goal, decide
from vbackup_libvirt.journal import Journal, RestoreEntry
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.swap import Move
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
    with node.restores.open(name) as journal, ExitStack() as stack:
        _undo_dead(node, journal)  # what a dead restore left must not be taken for somebody's
        goal = decide(node, machine, disks, files, request, token)
        if goal.existing is not None:  # a capture now would be one of old and new disks
            stack.enter_context(node.captures.open(goal.existing.uuid))
        temporary = [str(place.temporary) for place in goal.places if not place.is_device]
        temporary += [str(swap.beside(path, token)) for path in goal.files]
        entry = RestoreEntry(machine=goal.name, uuid=goal.uuid, temporary=(*temporary, str(sockets)))
        journal.write(entry)
        try:
            node.host.make_private_dir(str(sockets))
            for place in goal.places:
                if not place.is_device:
                    image.create(node.host, str(place.temporary), place.format, place.size)
            yield OpenRestoration(node, goal, request, journal, entry, sockets, token)
        finally:
            with suppress(VBackupError):  # then the journal stays, for a sweep
                undo(node, journal)


def undo(node: Node, journal: Journal[RestoreEntry]) -> list[str]:
    """Remove what a restore made and put back what it replaced, unless its new machine was defined and so has it now.

    A machine that was started in between keeps what it runs on, and the journal stays.
    """
    entry = journal.entry
    if entry is None:
        return []
    defined = bool(entry.uuid and (entry.made or entry.definition)) and _is_defined(node, entry.uuid)
    overwritten = Machine(node, entry.machine, entry.uuid) if defined and entry.definition else None
    if overwritten is not None and overwritten.is_active:
        return [f"{entry.machine} was started after a restore that did not get to its end: switch it off, to undo that"]
    notes = []
    if defined and overwritten is None:
        temporary = [*entry.temporary, *(one.old for one in entry.made)]
    else:
        temporary = [*entry.temporary]
        notes = swap.put_back(node.host, entry.made)
    if overwritten is not None:
        _define(node, entry.machine, entry.definition)
    for path in temporary:
        node.host.remove_tree(path)
    journal.clear()
    return [f"removed what a restore of {entry.machine} had left", *notes]


def _undo_dead(node: Node, journal: Journal[RestoreEntry]) -> None:
    notes = undo(node, journal)
    if journal.entry is not None:
        raise Busy("; ".join(notes), transient=False)


def _define(node: Node, name: str, text: str) -> None:
    connection = node.connection.get()
    with translated(f"defining the machine {name}"):
        connection.defineXML(text)


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
        token: str,
    ) -> None:
        self._node = node
        self._goal = goal
        self._request = request
        self._journal = journal
        self._entry = entry
        self._token = token
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
        goal, host = self._goal, self._node.host
        if goal.existing is not None and goal.existing.is_active:
            raise Busy(f"the machine {goal.name} was started meanwhile", hint="switch it off first", transient=False)
        files = [place for place in goal.places if not place.is_device]
        moves = [Move(str(place.temporary), str(place.path), place.replaces) for place in files]
        moves += state.stage(host, goal.files, self._token)
        made = swap.plan(host, moves, self._token)
        old = goal.existing.text(inactive=True) if goal.existing is not None else ""
        self._journal.write(self._entry.model_copy(update={"made": made, "definition": old}))
        if goal.existing is not None:
            self._define()
        swap.put(host, moves, made)
        if goal.existing is not None:
            goal.notes.extend(_forget(goal.existing))
        elif goal.domain is not None:
            self._define()
        # From here on nothing goes back, and what was replaced is of no use any more.
        temporary = (*self._entry.temporary, *(one.old for one in made))
        self._journal.write(self._entry.model_copy(update={"temporary": temporary}))
        if goal.domain is None:
            return "wrote " + ", ".join(f"disk {place.key} to {place.path}" for place in goal.places)
        return self._start()

    def _define(self) -> None:
        assert self._goal.domain is not None  # noqa: S101 - finish() has looked
        _define(self._node, self._goal.name, identity.text(self._goal.domain))

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
