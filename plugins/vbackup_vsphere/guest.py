"""Whether the system in a machine is up, as VMware Tools in it say."""

from __future__ import annotations

from vbackup_vsphere.inventory import Found
from vbackup_vsphere.session import Session


def answers(session: Session, found: Found) -> bool:
    """Return whether VMware Tools answer. That there are none cannot be told: so it is before they first answer."""
    facts = session.get(found.ref, "guest.toolsRunningStatus", "guest.guestOperationsReady")
    # Unset means that the host does not say; what it says is the later of the two.
    return facts.get("guest.toolsRunningStatus") == "guestToolsRunning" and bool(
        facts.get("guest.guestOperationsReady", True)
    )
