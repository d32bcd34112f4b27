"""The moment of a capture: making the snapshot, with the guest's file systems frozen or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from vbackup.api import (
    AccessDenied,
    Busy,
    CaptureLost,
    GuestError,
    NoSpace,
    NotFound,
    Quiesce,
    Unavailable,
    VBackupError,
)
from vbackup.api.clock import now
from vbackup_vsphere import snapshot
from vbackup_vsphere.plan import Plan
from vbackup_vsphere.session import Session
from vbackup_vsphere.snapshot import Snapshot

_FOR_GOOD = (NoSpace, AccessDenied, NotFound, Unavailable, Busy)
"""What a second attempt in another way would meet, too."""

_NO_TOOLS = "VMware Tools do not run in the guest"


@dataclass(frozen=True, slots=True)
class Moment:
    """A snapshot and when and how it was made."""

    snapshot: Snapshot
    time: datetime
    quiesced: bool
    memory: bool


def freeze(session: Session, plan: Plan, name: str, notes: list[str]) -> Moment:
    """Make the snapshot ``name``. Raises: `GuestError` when it must be quiesced and cannot be; `NoSpace`, `Busy`."""
    plan = plan.now(session)
    if plan.request.memory and plan.running:
        return _with_memory(session, plan, name, notes)
    if not _wanted(plan, notes):
        return _clean(session, plan, _make(session, plan, name), notes)
    try:
        made = _make(session, plan, name, quiesce=True)
    except _FOR_GOOD:
        raise
    except VBackupError as error:
        what = f"the guest's file systems of {plan.found.name} could not be frozen"
        if plan.request.quiesce is Quiesce.YES:
            raise GuestError(f"{what}: {error.message}", hint=error.hint) from error
        notes.append(f"{what}, the capture is crash-consistent: {error.message}")
        _remove_half(session, plan, name)
        return _make(session, plan, name)
    if not made.snapshot.quiesced:
        if plan.request.quiesce is Quiesce.YES:
            raise GuestError(f"the guest's file systems of {plan.found.name} were not frozen: vSphere did without")
        notes.append("the guest's file systems were not frozen, the capture is crash-consistent: vSphere did without")
    return replace(made, quiesced=made.snapshot.quiesced)


def _with_memory(session: Session, plan: Plan, name: str, notes: list[str]) -> Moment:
    try:
        made = _make(session, plan, name, memory=True)
    except _FOR_GOOD:
        raise
    except VBackupError as error:  # a device that is passed through, say: the disks are worth keeping all the same
        notes.append(f"the memory is not captured: {error.message}")
        _remove_half(session, plan, name)
        return freeze(session, replace(plan, request=replace(plan.request, memory=False)), name, notes)
    if plan.request.quiesce is not Quiesce.NO:
        notes.append("the guest's file systems were not frozen: vSphere does not do that together with the memory")
    return made


def _remove_half(session: Session, plan: Plan, name: str) -> None:
    what = f"removing what is left of the snapshot {name} of {plan.found.name}"
    snapshot.remove(session, plan.found.ref, what, lambda one: one.name == name)


def _wanted(plan: Plan, notes: list[str]) -> bool:
    if plan.request.quiesce is Quiesce.NO or not plan.running:
        return False
    if plan.tools:
        return True
    if plan.request.quiesce is Quiesce.YES:
        hint = "install open-vm-tools or VMware Tools in the guest, or set `quiesce: try`"
        raise GuestError(f"the guest's file systems of {plan.found.name} cannot be frozen: {_NO_TOOLS}", hint=hint)
    notes.append(f"the guest's file systems were not frozen, the capture is crash-consistent: {_NO_TOOLS}")
    return False


def _make(session: Session, plan: Plan, name: str, *, memory: bool = False, quiesce: bool = False) -> Moment:
    what = f"making a snapshot of {plan.found.name}"
    time = now()
    made = snapshot.create(session, plan.found.ref, what, name, plan.maker, memory=memory, quiesce=quiesce)
    return Moment(made, time, quiesced=False, memory=memory)


def _clean(session: Session, plan: Plan, moment: Moment, notes: list[str]) -> Moment:
    """A machine that is off is consistent if its guest shut itself down, and if it stayed off for the moment."""
    if not plan.running and plan.now(session).running:
        what = f"{plan.found.name} was switched on while its snapshot was made"
        if plan.request.quiesce is Quiesce.YES:
            raise CaptureLost(f"{what}, so that it may have been running unfrozen")
        notes.append(f"{what}: the capture is crash-consistent")
        return moment
    off = not plan.running and bool(plan.facts.get("runtime.cleanPowerOff"))
    return replace(moment, quiesced=off)
