"""Whether the user may do what a restore ends with: hours of writing must not end at a privilege that is missing.

What it begins with is refused by the import itself, before a byte is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vbackup.api import AccessDenied, Unsupported

if TYPE_CHECKING:
    from vbackup_vsphere.goal import Goal
    from vbackup_vsphere.session import Session

_ALWAYS = ("VirtualMachine.Config.AdvancedConfig", "VirtualMachine.Config.Settings", "VirtualMachine.Inventory.Delete")
_IN_PLACE = ("VirtualMachine.Config.Rename",)
_GOING_OVER = ("VirtualMachine.Config.AddExistingDisk", "VirtualMachine.Config.RemoveDisk")


def require(session: Session, goal: Goal) -> None:
    """Refuse what the user may not bring to its end. Raises: `AccessDenied` that names what is missing, and where."""
    wanted = [*_ALWAYS]
    if goal.existing is not None:
        wanted += _IN_PLACE
    if goal.kept:
        wanted += _GOING_OVER
    places = [goal.placement.folder, *([goal.existing.ref] if goal.existing is not None else [])]
    lacks = _lacking(session, places, wanted)
    if lacks:
        named = ", ".join(f"the privilege {privilege} on {session.name_of(ref)}" for privilege, ref in lacks)
        raise AccessDenied(
            f"{session.alias}: {goal.identity.name} cannot be restored: the user lacks {named}",
            hint="add it to the role of the user",
        )


def _lacking(session: Session, refs: list[Any], wanted: list[str]) -> list[tuple[str, Any]]:
    manager, sessions = session.content.authorizationManager, session.content.sessionManager
    current = session.get(sessions, "currentSession").get("currentSession")
    if current is None:  # then the calls themselves will tell
        return []
    what = f"{session.alias}: asking for privileges"
    try:
        answers = session.call(what, lambda: manager.HasPrivilegeOnEntities(refs, current.key, wanted), repeat=True)
    except (AccessDenied, Unsupported):
        return []
    return [
        (one.privId, answer.entity) for answer in answers or () for one in answer.privAvailability if not one.isGranted
    ]
