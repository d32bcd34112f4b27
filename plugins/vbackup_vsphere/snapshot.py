"""Snapshots of ours: how they are called, made, found and removed. Others' are never touched."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim

from vbackup.api import NotFound, VBackupError
from vbackup.api.clock import now
from vbackup_undo.maker import Maker
from vbackup_vsphere.properties import moid
from vbackup_vsphere.session import Session

PREFIX = "vbackup-"
_ELSEWHERE_SECONDS = 24 * 3600  # whether a maker on another host lives cannot be known; none takes so long


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of a machine."""

    ref: Any = field(repr=False)
    name: str
    description: str
    quiesced: bool

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


def is_stale(maker: Maker) -> bool:
    """Whether nobody can be at work with what ``maker`` made."""
    if maker.is_here():
        return maker.is_dead()
    return now().timestamp() - maker.created > _ELSEWHERE_SECONDS


def walk(info: Any) -> Iterator[Snapshot]:
    """Yield all snapshots of a ``VirtualMachineSnapshotInfo``, None included."""
    trees = list(info.rootSnapshotList) if info is not None else []
    while trees:
        tree = trees.pop(0)
        yield Snapshot(tree.snapshot, tree.name, tree.description or "", bool(tree.quiesced))
        trees += tree.childSnapshotList or []


def of_machine(session: Session, vm: Any) -> list[Snapshot]:
    """Return the snapshots of a machine."""
    return list(walk(session.get(vm, "snapshot").get("snapshot")))


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
    ours = [one for one in of_machine(session, vm) if is_ours(one)]
    if not ours and _await_creation(session, vm):
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
    return bool(session.get(vm, "runtime.consolidationNeeded").get("runtime.consolidationNeeded"))


def consolidate(session: Session, vm: Any, name: str) -> None:
    """Merge layers of snapshots that are gone. Raises an error when that fails, or is not enough."""
    what = f"consolidating the disks of {name}"
    task = session.call(what, vm.ConsolidateVMDisks_Task)
    session.wait(task, what)
    if needs_consolidation(session, vm):
        raise VBackupError(f"{what}: vSphere says that it is still needed", hint="is a disk of it in use elsewhere?")


def _await_creation(session: Session, vm: Any) -> bool:
    """Wait for snapshots being made, and return whether there were some: the answer to our call may have been lost."""
    tasks = list(session.get(vm, "recentTask").get("recentTask", ()))
    tasks += session.get(session.content.taskManager, "recentTask").get("recentTask", ())
    waited = False
    for task in tasks:
        with suppress(VBackupError):  # what matters is that it has ended
            if _is_creating(session, task, vm):
                waited = True
                session.wait(task, "waiting for a snapshot that is being made")
    return waited


def _is_creating(session: Session, task: Any, vm: Any) -> bool:
    info = session.get(task, "info.descriptionId", "info.state", "info.entity")
    making = str(info.get("info.descriptionId", "")).startswith("VirtualMachine.createSnapshot")
    under_way = info.get("info.state") in {vim.TaskInfo.State.queued, vim.TaskInfo.State.running}
    return making and under_way and info.get("info.entity") == vm
