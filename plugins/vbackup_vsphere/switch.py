"""Whether vSphere tracks a machine's changes, and switching that on where the configuration asks for it."""

from __future__ import annotations

import re

from pyVmomi import vim

from vbackup.api import VBackupError
from vbackup_vsphere.plan import Plan
from vbackup_vsphere.session import Session

_OLDEST_HARDWARE = 7
_OFF = "changed-block tracking is off for this machine"
_HINT = "`tracking: enable` switches it on"


def why_untracked(session: Session, plan: Plan, notes: list[str]) -> str | None:
    """Return why the machine's changes are not tracked, as a phrase; None when they are.

    Switches the tracking on if that is asked for. It takes effect with the next snapshot.
    """
    why = why_off(session, plan)
    if why is None or session.options.tracking != "enable" or _why_impossible(plan) is not None:
        return why
    if plan.snapshots:
        snapshots = "it cannot be switched on while the machine has snapshots"
        notes.append(f"changed-block tracking stays off: {snapshots}; delete them")
        return f"{_OFF}: {snapshots}"
    return _switch_on(session, plan, notes)


def why_off(session: Session, plan: Plan) -> str | None:
    """Return why the machine's changes are not tracked now, as a phrase; None when they are."""
    if session.options.tracking == "no":
        return "changed-block tracking is not used, as configured"
    cannot = _why_impossible(plan)
    if cannot is not None:
        return cannot
    return None if plan.facts.get("config.changeTrackingEnabled") else f"{_OFF}; {_HINT}"


def _why_impossible(plan: Plan) -> str | None:
    found = re.fullmatch(r"vmx-0*(\d+)", str(plan.facts.get("config.version", "")))
    if found is not None and int(found[1]) < _OLDEST_HARDWARE:
        return f"virtual hardware {found[1]} has no changed-block tracking; upgrade it to {_OLDEST_HARDWARE} or later"
    if plan.facts.get("capability.changeTrackingSupported") is False:
        return "this machine's host has no changed-block tracking"
    return None


def _switch_on(session: Session, plan: Plan, notes: list[str]) -> str | None:
    what = f"switching on changed-block tracking of {plan.found.name}"
    spec = vim.vm.ConfigSpec(changeTrackingEnabled=True)
    try:
        session.wait(session.call(what, lambda: plan.found.ref.ReconfigVM_Task(spec)), what)
    except VBackupError as error:
        if error.transient:
            raise
        notes.append(str(error))
        return f"{_OFF}, and could not be switched on"
    notes.append("changed-block tracking was switched on for this machine")
    return None
