"""Snapshots of ours: how they are called, made, found and removed. Others' are never touched."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pyVmomi import vim

from vbackup.api import NotFound, Unavailable, VBackupError
from vbackup_undo.maker import Maker
from vbackup_vsphere.properties import moid, read_from
from vbackup_vsphere.session import Session

PREFIX = "vbackup-"
_ELSEWHERE = timedelta(days=7)  # whether a maker on another host lives cannot be known; none takes so long
_RUNNING = (vim.TaskInfo.State.queued, vim.TaskInfo.State.running)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of a machine."""

    ref: Any = field(repr=False)
    name: str
    description: str
    quiesced: bool
    created: datetime | None = field(compare=False)
    """By the host's clock; None where it does not say."""

    @property
    def moid(self) -> str:
        """Its managed object id, such as ``snapshot-71``."""
        return moid(self.ref)

    def maker(self, owner: str) -> Maker | None:
        """Return who made it for ``owner``; None when it is not of ours and his."""
        if not self.name.startswith(PREFIX + owner[:8] + "-"):
            return None
        maker = Maker.parse(self.description)
        return maker if maker is not None and maker.owner == owner else None


def new_name(owner: str) -> str:
    """Return a name for a snapshot that no other has."""
    return f"{PREFIX}{owner[:8]}-{secrets.token_hex(6)}"


def is_stale(session: Session, one: Snapshot, maker: Maker) -> bool:
    """Whether nobody can be at work with a snapshot that ``maker`` made.

    How old it is tells one clock, the host's: that of the maker's host may be wrong by days.
    """
    if maker.is_here():
        return maker.is_dead()
    return one.created is not None and session.now() - one.created > _ELSEWHERE


def walk(info: Any) -> Iterator[Snapshot]:
    """Yield all snapshots of a ``VirtualMachineSnapshotInfo``, None included."""
    trees = list(info.rootSnapshotList) if info is not None else []
    while trees:
        tree = trees.pop(0)
        yield Snapshot(tree.snapshot, tree.name, tree.description or "", bool(tree.quiesced), tree.createTime)
        trees += tree.childSnapshotList or []


def of_machine(session: Session, vm: Any) -> list[Snapshot]:
    """Return the snapshots of a machine. Raises: `Unavailable` when that cannot be known, ..."""
    return list(walk(_known(session, vm, "snapshot")))


def create(session: Session, vm: Any, what: str, name: str, maker: Maker, *, memory: bool, quiesce: bool) -> Snapshot:
    """Make a snapshot and return it. Raises: `GuestError`, `NoSpace`, `Busy`, `Unavailable`, ..."""
    description = maker.model_dump_json()
    task = session.call(what, lambda: vm.CreateSnapshot_Task(name, description, memory, quiesce))
    session.wait(task, what)
    made = next((one for one in of_machine(session, vm) if one.name == name), None)
    if made is None:
        raise NotFound(f"{what}: it is gone already", transient=True)
    return made


def remove(session: Session, vm: Any, what: str, is_ours: Callable[[Snapshot], bool]) -> int:
    """Remove the snapshots that ``is_ours`` and wait until their disks are merged; return how many there were.

    All are tried before the first error is raised.
    """
    _await_creation(session, vm)
    ours = [one for one in of_machine(session, vm) if is_ours(one)]
    errors: list[VBackupError] = []
    for one in ours:
        try:
            _remove(session, one, what)
        except NotFound:  # somebody else was faster, or the host has forgotten the task
            if one in of_machine(session, vm):
                errors.append(VBackupError(f"{what}: it is still there"))
        except VBackupError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return len(ours)


def _remove(session: Session, one: Snapshot, what: str) -> None:
    session.wait(session.call(what, lambda: one.ref.RemoveSnapshot_Task(False, True)), what)


def needs_consolidation(session: Session, vm: Any) -> bool:
    """Whether a machine's disks still have layers of snapshots that are gone."""
    return bool(_known(session, vm, "runtime.consolidationNeeded"))


def consolidate(session: Session, vm: Any, name: str) -> None:
    """Merge layers of snapshots that are gone. Raises an error when that fails, or is not enough."""
    what = f"consolidating the disks of {name}"
    task = session.call(what, vm.ConsolidateVMDisks_Task)
    session.wait(task, what)
    if needs_consolidation(session, vm):
        raise VBackupError(f"{what}: vSphere says that it is still needed", hint="is a disk of it in use elsewhere?")


def _known(session: Session, vm: Any, path: str) -> Any:
    """Return a property of a machine, None if it is unset. Raises: `Unavailable` when the host itself cannot know.

    A machine whose ESXi host or files are away has neither configuration nor snapshots: it must not seem to have none.
    """
    row = session.get(vm, path, "config.instanceUuid", "runtime.connectionState", whole=True)
    state = str(row.get("runtime.connectionState", "unknown"))
    if state != "connected" or "config.instanceUuid" not in row:
        raise Unavailable(f"{path} of {session.name_of(vm)} cannot be known: the machine is {state}, not readable")
    return row.get(path)


def _await_creation(session: Session, vm: Any) -> None:
    """Wait for snapshots being made: the answer to our call may have been lost."""
    what = "waiting for a snapshot that is being made"
    for task in _creating(session, vm):
        with suppress(VBackupError):  # what matters is that it has ended
            session.wait(task, what)
    if _creating(session, vm):
        raise Unavailable(f"{session.alias}: {what}: it has not ended")


def _creating(session: Session, vm: Any) -> list[Any]:
    """Return the tasks under way that make snapshots of a machine."""
    paths = ("info.descriptionId", "info.state", "info.entity")
    found = {}
    for start, proof in ((vm, "name"), (session.content.taskManager, "maxCollector")):
        for task, row in session.call(
            f"{session.alias}: looking for snapshots that are being made",
            lambda: read_from(session.content, start, "recentTask", proof, vim.Task, paths),  # noqa: B023
            repeat=True,
        ):
            is_making = str(row.get("info.descriptionId", "")).startswith("VirtualMachine.createSnapshot")
            if is_making and row.get("info.state") in _RUNNING and row.get("info.entity") == vm:
                found[moid(task)] = task
    return list(found.values())
