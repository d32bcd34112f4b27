"""The moment of a capture: making the snapshot, with the guest's file systems frozen or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from vbackup.api import (
    AccessDenied,
    Busy,
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
    quiesce = _wanted(plan, notes)
    memory = plan.request.memory and plan.running
    if not quiesce:
        return _clean(plan, _make(session, plan, name, memory=memory, quiesce=False))
    try:
        made = _make(session, plan, name, memory=False, quiesce=True)
    except (NoSpace, AccessDenied, NotFound, Unavailable, Busy):
        raise
    except VBackupError as error:
        what = f"the guest's file systems of {plan.found.name} could not be frozen"
        if plan.request.quiesce is Quiesce.YES:
            raise GuestError(f"{what}: {error.message}", hint=error.hint) from error
        notes.append(f"{what}, the capture is crash-consistent: {error.message}")
        removing = f"removing what is left of the snapshot {name} of {plan.found.name}"
        snapshot.remove(session, plan.found.ref, removing, lambda one: one.name == name)
        return _make(session, plan, name, memory=False, quiesce=False)
    if not made.snapshot.quiesced:
        if plan.request.quiesce is Quiesce.YES:
            raise GuestError(f"the guest's file systems of {plan.found.name} were not frozen: vSphere did without")
        notes.append("the guest's file systems were not frozen, the capture is crash-consistent: vSphere did without")
    return replace(made, quiesced=made.snapshot.quiesced)


def _wanted(plan: Plan, notes: list[str]) -> bool:
    if plan.request.quiesce is Quiesce.NO or not plan.running:
        return False
    if plan.request.memory:
        notes.append("the guest's file systems were not frozen: vSphere does not do that together with the memory")
        return False
    if plan.tools:
        return True
    if plan.request.quiesce is Quiesce.YES:
        hint = "install open-vm-tools or VMware Tools in the guest, or set `quiesce: try`"
        raise GuestError(f"the guest's file systems of {plan.found.name} cannot be frozen: {_NO_TOOLS}", hint=hint)
    notes.append(f"the guest's file systems were not frozen, the capture is crash-consistent: {_NO_TOOLS}")
    return False


def _make(session: Session, plan: Plan, name: str, *, memory: bool, quiesce: bool) -> Moment:
    what = f"making a snapshot of {plan.found.name}"
    time = now()
    made = snapshot.create(session, plan.found.ref, what, name, plan.maker, memory=memory, quiesce=quiesce)
    return Moment(made, time, quiesced=False, memory=memory)


def _clean(plan: Plan, moment: Moment) -> Moment:
    """A machine that is off is consistent if its guest shut itself down."""
    off = not plan.running and bool(plan.facts.get("runtime.cleanPowerOff"))
    return replace(moment, quiesced=off)
