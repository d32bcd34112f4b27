"""Capturing a template. It cannot have snapshots or leases, and it cannot run: its files do not change meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vbackup.api import Capture, CaptureLost, NotFound, OpenCapture, Unsupported
from vbackup.api.clock import now
from vbackup_vsphere import nvram
from vbackup_vsphere.limits import Turn
from vbackup_vsphere.plan import Plan
from vbackup_vsphere.readers.base import Frozen
from vbackup_vsphere.readers.choose import open_reader
from vbackup_vsphere.readers.datastore import Datastore
from vbackup_vsphere.session import Session
from vbackup_vsphere.source import VmSource

_REASON = "templates have no changed-block tracking"
_WAY_OUT = "convert it to a machine for the backup, or back up a clone of it"


@contextmanager
def capture_template(session: Session, plan: Plan, turn: Turn, notes: list[str]) -> Iterator[Capture]:
    """Hold a template open. Raises: `Unsupported` where its files cannot be read as they are (vSAN, vVols)."""
    name = plan.found.name
    if "datastore" not in session.options.read:
        raise Unsupported(f"{name} is a template, which only the way `datastore` can read", hint=_WAY_OUT)
    if plan.request.moment is not None:
        plan.request.moment()
    time = now()
    frozen = Frozen(session, name, plan.found.moid, "", plan.datacenter)

    def verify() -> None:
        try:
            facts = session.get(plan.found.ref, "config.template", "config.changeVersion")
        except NotFound as error:
            raise CaptureLost(f"the template {name} was removed while it was captured") from error
        if not facts.get("config.template") or facts.get("config.changeVersion") != plan.facts.get(
            "config.changeVersion"
        ):
            raise CaptureLost(f"the template {name} was changed or made a machine while it was captured")

    verify()  # since the facts were read it may have become a machine
    with ExitStack() as stack:
        sources = []
        for disk in plan.disks:
            try:
                reader, _, _ = stack.enter_context(open_reader([Datastore()], frozen, disk))
            except Unsupported as error:
                raise Unsupported(f"{name} is a template: {error.message}", hint=_WAY_OUT) from error
            sources.append(VmSource(disk, reader, _REASON, lambda: None, turn.begin, verify))
        files = nvram.read(session, plan, notes)
        yield OpenCapture(
            machine=plan.machine,
            time=time,
            quiesced=True,
            disks=sources,
            files=files,
            marker=None,
            notes=notes,
            verify=verify,
        )
