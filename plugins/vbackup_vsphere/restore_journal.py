"""What a restore has made or changed, for whoever finds its journal; and how it is undone, or brought to its end.

A machine that is being made carries a mark with the restore's token, and loses it with the one call that makes it
complete. So it is the host that knows how far a dead restore has come, not the journal, which may be a step behind.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vbackup.api import Busy, HypervisorContext, NotFound, Unavailable, VBackupError
from vbackup_undo.journal import Entry, Journal, Journals
from vbackup_vsphere import kept, settings
from vbackup_vsphere.properties import moid

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session


class RestoreEntry(Entry):
    """What a restore leaves behind if it dies."""

    machine: str
    """Its name when all is done."""
    token: str
    folder: str
    """The managed object id of the folder that the machine is made in."""
    name: str
    """The name under which it is made."""
    vm: str = ""
    """Its managed object id, once that is known."""
    old: str = ""
    """The managed object id of the machine that it replaces, from when that one is touched."""
    old_name: str = ""
    old_instance: str = ""
    old_template: bool = False
    keeps_old: bool = False
    """Whether the old machine stays when the new one is complete."""


def journals(context: HypervisorContext) -> Journals[RestoreEntry]:
    """Return the journals of all restores."""
    return Journals(context.state_dir, "restore", RestoreEntry)


def sweep(session: Session, context: HypervisorContext) -> list[str]:
    """Undo what dead restores left, or bring it to its end; one phrase for each."""
    done: list[str] = []
    for journal in journals(context).dead():
        try:
            done += undo(session, journal)
        except VBackupError as error:
            if journal.entry is not None:
                done.append(f"could not undo a dead restore of {journal.entry.machine}: {error}")
    return done


def undo(session: Session, journal: Journal[RestoreEntry]) -> list[str]:
    """Remove what a restore made, unless it is complete, and give a machine that it was to replace its name back.

    Raises what keeps it from being undone: then the journal stays.
    """
    entry = journal.entry
    if entry is None:
        return []
    made = find_made(session, entry)
    if made is not None and mark(session, made) != entry.token:
        notes = [f"finished a restore of {entry.machine}"] if finish_old(session, entry) else []
    else:
        notes = _revert(session, entry, made)
    journal.clear()
    return notes


def find_made(session: Session, entry: RestoreEntry) -> Any:
    """Return the machine that a restore has made, None without one. Only a mark tells that it is ours."""
    if entry.vm:
        made = session.object(vim.VirtualMachine, entry.vm)
        return made if _name(session, made) is not None else None
    folder, index = session.object(vim.Folder, entry.folder), session.content.searchIndex
    try:
        found = session.call(
            f"{session.alias}: looking for {entry.name}", lambda: index.FindChild(folder, entry.name), repeat=True
        )
    except NotFound:  # the folder is gone, and all that was in it
        return None
    return found if isinstance(found, vim.VirtualMachine) and mark(session, found) == entry.token else None


def mark(session: Session, vm: Any) -> str:
    """Return the token of the restore that makes a machine, empty if it is complete.

    Raises: `Unavailable` when that cannot be told: an unreadable machine must not be taken for a complete one.
    """
    options = session.get(vm, "config.extraConfig").get("config.extraConfig")
    if not options:
        raise Unavailable(f"{session.alias}: the settings of {moid(vm)} cannot be read now")
    return next((str(one.value) for one in reversed(options) if one.key == settings.MARK), "")


def destroy(session: Session, vm: Any, name: str) -> None:
    """Remove a machine with its disks. Raises: `Busy` when it runs."""
    with suppress(NotFound):
        if session.get(vm, "runtime.powerState").get("runtime.powerState") != "poweredOff":
            raise Busy(f"{name} was started meanwhile", hint="switch it off", transient=False)
        what = f"{session.alias}: removing {name}"
        session.wait(session.call(what, vm.Destroy_Task), what)


def rename(session: Session, vm: Any, name: str, instance: str, what: str) -> None:
    """Give a machine another name and instance UUID, in one call."""
    spec = vim.vm.ConfigSpec(name=name, instanceUuid=instance)
    session.wait(session.call(what, lambda: vm.ReconfigVM_Task(spec)), what)


def finish_old(session: Session, entry: RestoreEntry) -> bool:
    """The new machine is complete: remove the one that it replaces. Return whether there was something to do."""
    if not entry.old or entry.keeps_old:
        return False
    old = session.object(vim.VirtualMachine, entry.old)
    if _name(session, old) is None:
        return False
    if (made := find_made(session, entry)) is not None:
        kept.let_go(session, old, made, f"{session.alias}: {entry.old_name}: unplugging the disks that went over")
    destroy(session, old, entry.old_name)
    return True


def _revert(session: Session, entry: RestoreEntry, made: Any) -> list[str]:
    notes = []
    if made is not None:
        if entry.old and _name(session, old := session.object(vim.VirtualMachine, entry.old)) is not None:
            kept.let_go(session, made, old, f"{session.alias}: {entry.name}: unplugging the disks of the old one")
        destroy(session, made, entry.name)
        notes.append(f"removed what a restore of {entry.machine} had left")
    if entry.old:
        notes += _put_back(session, entry)
    return notes


def _put_back(session: Session, entry: RestoreEntry) -> list[str]:
    """Make the machine that was to be replaced what it was."""
    old = session.object(vim.VirtualMachine, entry.old)
    name = _name(session, old)
    if name is None:
        return []
    notes = []
    if name != entry.old_name:
        what = f"{session.alias}: giving {name} its name {entry.old_name} back"
        rename(session, old, entry.old_name, entry.old_instance, what)
        notes.append(f"gave {entry.old_name} its name back, which a restore had changed")
    if entry.old_template and not session.get(old, "config.template").get("config.template"):
        session.call(f"{session.alias}: making {entry.old_name} a template again", old.MarkAsTemplate)
        notes.append(f"made {entry.old_name} a template again")
    return notes


def _name(session: Session, vm: Any) -> str | None:
    try:
        return str(session.get(vm, "name")["name"])
    except (NotFound, KeyError):
        return None


def new_token() -> str:
    """Return a token of a restore."""
    return secrets.token_hex(4)
