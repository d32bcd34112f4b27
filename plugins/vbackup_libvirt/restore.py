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
from dataclasses import replace
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
from vbackup_libvirt import across, awake, checkpoints, convert, document, identity, state, swap
from vbackup_libvirt import goal as goal_of
from vbackup_libvirt.connection import translated
from vbackup_libvirt.goal import Goal
from vbackup_libvirt.journal import RestoreEntry
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.placement import safe_name
from vbackup_libvirt.swap import Move
from vbackup_qemu import image
from vbackup_qemu.sink import ImageSink
from vbackup_undo.journal import Journal


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
        decide = goal_of.decide if request.disks or not across.is_foreign(machine) else across.decide
        goal = decide(node, machine, disks, files, request, token)
        if goal.existing is not None:  # a capture now would be one of old and new disks
            stack.enter_context(node.captures.open(goal.existing.uuid))
        temporary = [str(place.temporary) for place in goal.places if not place.is_device]
        temporary += [str(swap.beside(path, token)) for path in goal.files]
        temporary += [str(convert.overlay(place)) for place in goal.places if goal.converted is not None]
        memory = node.options.storage / f".{safe_name(goal.name)}-memory.vbackup-{token}"
        temporary += [str(memory)] if goal.memory is not None else []
        entry = RestoreEntry(machine=goal.name, uuid=goal.uuid, temporary=(*temporary, str(sockets)))
        journal.write(entry)
        try:
            node.host.make_private_dir(str(sockets))
            for place in goal.places:
                if not place.is_device:
                    image.create(node.host, str(place.temporary), place.format, place.size)
            if goal.memory is not None:
                image.create(node.host, str(memory), "raw", goal.memory.size)
            yield OpenRestoration(node, goal, request, journal, entry, sockets, token, memory)
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
        memory: PurePosixPath,
    ) -> None:
        self._node = node
        self._goal = goal
        self._request = request
        self._journal = journal
        self._entry = entry
        self._token = token
        self._memory = memory
        self._sockets = sockets
        sinks = {
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
        if goal.memory is not None:
            size, label = goal.memory.size, f"{goal.name} memory"
            sink = ImageSink(node.host, Path(memory), "raw", size, zeroed=True, sockets=Path(sockets), label=label)
            sinks[goal.memory.key] = sink
        self.disks: Mapping[str, SinkDisk] = sinks

    @property
    def notes(self) -> Sequence[str]:
        """See `Restoration.notes`."""
        return self._goal.notes

    def finish(self) -> str:
        """See `Restoration.finish`."""
        self._convert()
        goal, host = self._goal, self._node.host
        if goal.existing is not None and goal.existing.is_active:
            raise Busy(f"the machine {goal.name} was started meanwhile", hint="switch it off first", transient=False)
        files = [place for place in goal.places if not place.is_device]
        moves = [Move(str(place.temporary), str(place.path), place.replaces) for place in files]
        moves += state.stage(host, goal.files, self._token)
        moves += [Move(None, str(path), replaces=True) for path in goal.obsolete]
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

    def _convert(self) -> None:
        goal = self._goal
        if goal.converted is None or goal.domain is None:
            return
        has_virtio, note = convert.convert(self._node.host, goal.domain, goal.places, self._sockets / "v2v.xml")
        self._goal = replace(goal, domain=goal.converted(has_virtio))
        self._goal.notes.append(note)

    def _define(self) -> None:
        assert self._goal.domain is not None  # noqa: S101 - finish() has looked
        _define(self._node, self._goal.name, identity.text(self._goal.domain))

    def _start(self) -> str:
        goal = self._goal
        said = f"the machine {goal.name} is defined"
        if not self._request.start:
            return said
        if goal.memory is not None:
            return self._go_on(said)
        try:
            Machine(self._node, goal.name, goal.uuid).ask("starting it", lambda domain: domain.create())
        except VBackupError as error:
            goal.notes.append(f"it could not be started: {error}")
            return f"{said}, but could not be started"
        return f"{said} and running"

    def _go_on(self, said: str) -> str:
        """Have it go on where it was. If it cannot it is left off: a start would end for good what was going on."""
        goal = self._goal
        assert goal.domain is not None  # noqa: S101 - a machine that has memory is defined
        try:
            awake.go_on(self._node, goal.name, goal.uuid, goal.places, document.nvram(goal.domain), self._memory)
        except VBackupError as error:
            goal.notes.append(
                f"it could not go on from its memory, and is off: {error}; start it to boot it as after a power "
                "failure, or restore it once more when that is mended"
            )
            return f"{said}, but could not go on from its memory"
        return f"{said} and goes on where it was"
