"""Capturing a machine: a snapshot is made, read, and removed on every way out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vbackup.api import Capture, CaptureRequest, OpenCapture
from vbackup_undo.journal import Journal
from vbackup_vsphere import hardware, memory, moment, nvram, snapshot, sweep, switch
from vbackup_vsphere.held import Held
from vbackup_vsphere.inventory import Found, require_reachable
from vbackup_vsphere.journal import CaptureEntry
from vbackup_vsphere.limits import Turn
from vbackup_vsphere.moment import Moment
from vbackup_vsphere.plan import Plan, plan
from vbackup_vsphere.properties import moid
from vbackup_vsphere.session import Session
from vbackup_vsphere.site import Site
from vbackup_vsphere.template import capture_template


@contextmanager
def capture(site: Site, name: str, request: CaptureRequest) -> Iterator[Capture]:
    """See `vbackup.api.Hypervisor.capture`."""
    found = site.inventory.find(name)
    require_reachable(site.session, found)
    with site.captures.open(found.uuid) as journal:
        notes = sweep.before_capture(site, found, journal, request.owner)
        with Turn(site.slots, _slots(site, found), request.is_stopped) as turn:
            # Members of a group wait for each other: none may hold the slots that another one waits for.
            if request.moment is None:
                turn.begin()
            planned = plan(site, found, request)
            notes += planned.notes
            with (
                capture_template(site.session, planned, turn, notes)
                if found.is_template
                else _snapshot(site.session, planned, journal, turn, notes)
            ) as opened:
                yield opened


def _slots(site: Site, found: Found) -> dict[str, int]:
    """Return what the copy puts load on, and how many machines may at once."""
    facts = site.session.get(found.ref, "runtime.host", "config.hardware.device")
    host = facts.get("runtime.host")
    wanted = {f"host {moid(host)}": site.options.per_host} if host is not None else {}
    for disk in hardware.disks(site.session, facts.get("config.hardware.device", ())):
        wanted[f"datastore {disk.datastore}"] = site.options.per_datastore
    return wanted


@contextmanager
def _snapshot(
    session: Session, plan: Plan, journal: Journal[CaptureEntry], turn: Turn, notes: list[str]
) -> Iterator[Capture]:
    vm = plan.found.ref
    untracked = switch.why_untracked(session, plan, notes)
    name = snapshot.new_name(plan.request.owner)
    entry = entry_of(session, plan, name, journal.entry)
    if entry.needed_consolidation:
        notes.append("the machine's disks needed consolidation before this backup; vSphere's client can do that")
    with sweep.undone(session, vm, journal, entry), ExitStack() as stack:
        if plan.request.moment is not None:
            plan.request.moment()
        made = _freeze(session, plan, name, notes, untracked)
        held = Held(session, plan, made.snapshot, untracked, notes)
        sources = held.sources(stack, turn)
        files = nvram.read(session, plan, notes)
        kept = memory.kept(session, plan, made.snapshot, files, notes, held.verify, stack) if made.memory else None
        yield OpenCapture(
            machine=plan.machine,
            time=made.time,
            quiesced=made.quiesced,
            disks=sources,
            files=files,
            marker=held.marker(),
            notes=notes,
            verify=held.verify,
            memory=kept,
        )


def entry_of(session: Session, plan: Plan, name: str, left: CaptureEntry | None) -> CaptureEntry:
    """Return what is journaled; ``left`` is what an earlier capture left and could not be undone."""
    if left is not None:
        return left.model_copy(update={"snapshots": (*left.snapshots, name)})
    return CaptureEntry(
        owner=plan.request.owner,
        machine=plan.found.name,
        uuid=plan.found.uuid,
        moid=plan.found.moid,
        snapshots=(name,),
        needed_consolidation=snapshot.needs_consolidation(session, plan.found.ref),
    )


def _freeze(session: Session, plan: Plan, name: str, notes: list[str], untracked: str | None) -> Moment:
    """Make the snapshot; twice where tracking was just switched on and only begins with the first one.

    Not in a group, whose moment is the first one's.
    """
    said: list[str] = []
    made = moment.freeze(session, plan, name, said)
    if _begins_tracking(session, plan, made, untracked):
        what = f"removing the first snapshot of {plan.found.name}, which its change tracking began with"
        snapshot.remove(session, plan.found.ref, what, lambda one: one.name == name)
        said = []  # what was said of the one that is gone
        made = moment.freeze(session, plan, name, said)
    notes += said
    return made


def _begins_tracking(session: Session, plan: Plan, made: Moment, untracked: str | None) -> bool:
    just_on = untracked is None and not plan.facts.get("config.changeTrackingEnabled")
    if not just_on or plan.request.moment is not None:
        return False
    devices = session.get(made.snapshot.ref, "config.hardware.device").get("config.hardware.device", ())
    return not any(disk.change_id for disk in hardware.disks(session, devices))
