"""A try on a real site: snapshot, read by each way, ask for changes, remove; and a report to paste into an issue.

The report has versions, kinds and times; no names of hosts, machines, datastores or users, and nothing secret.
"""

from __future__ import annotations

import hashlib
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version

from vbackup.api import CaptureRequest, Quiesce, Range, VBackupError, split
from vbackup_undo.journal import Journal
from vbackup_vsphere import moment, snapshot, sweep, switch, tracking
from vbackup_vsphere.capture import entry_of
from vbackup_vsphere.disks import VmDisk
from vbackup_vsphere.held import Held
from vbackup_vsphere.inventory import Found, require_reachable
from vbackup_vsphere.journal import CaptureEntry
from vbackup_vsphere.plan import Plan, plan
from vbackup_vsphere.readers.base import DiskReader, Frozen, Way
from vbackup_vsphere.readers.choose import make_ways
from vbackup_vsphere.site import Site
from vbackup_vsphere.tracking import EVERYTHING, Areas

Write = Callable[[str], None]

OWNER = "5e1f7e57" * 4
"""Whom snapshots of self-tests belong to: no repository, so that no backup's leftovers are touched."""

_NAMES = (
    (re.compile(r"\[[^\]]*\] .*?\.\w+"), "FILE"),
    (re.compile(r"https://[^/\s]+/folder/\S+|/folder/\S+"), "FILE"),
    (re.compile(r"(?<=https://)[^/\s]+"), "HOST"),
    (re.compile(r"(?<=connect to )\S+"), "HOST"),
)
_READ = 4 << 20  # bytes from the beginning of each disk, and as many before its end


class SelfTest:
    """One run. What fails is told, and the rest goes on."""

    def __init__(self, site: Site, name: str, write: Write) -> None:
        self._site = site
        self._name = name
        self._write = write
        self._failures = 0

    def run(self) -> bool:
        """Return whether all went well. Raises: `NotFound`, `Unavailable`, `AccessDenied` before anything is made."""
        site, session = self._site, self._site.session
        found = site.inventory.find(self._name)
        require_reachable(session, found)
        self._versions(found)
        with site.captures.open(found.uuid) as journal:
            self._hide(sweep.before_capture(site, found, journal, OWNER))
            planned = plan(site, found, CaptureRequest(OWNER, quiesce=Quiesce.NO))
            self._machine(planned)
            with self._step("snapshot, reading and removal"):
                self._with_snapshot(planned, journal)
        with self._step("nothing is left"):
            self._leftovers(found)
        self._write(f"result: {'FAILED' if self._failures else 'ok'}")
        return self._failures == 0

    def _versions(self, found: Found) -> None:
        session = self._site.session
        about = session.content.about
        self._write(f"vbackup {version('vbackup')}, Python {platform.python_version()}, pyvmomi {version('pyvmomi')}")
        self._write(f"{about.fullName} ({about.apiType}, API {about.apiVersion})")
        host = session.get(found.ref, "runtime.host").get("runtime.host")
        if host is not None:
            product = session.get(host, "config.product.fullName").get("config.product.fullName", "unknown")
            self._write(f"its host: {product}")

    def _machine(self, planned: Plan) -> None:
        facts = planned.facts
        tracks = "on" if facts.get("config.changeTrackingEnabled") else "off"
        self._write(
            f"machine: {facts.get('config.version')}, {planned.machine.firmware}, "
            f"{'on' if planned.running else 'off'}, tools {facts.get('guest.toolsRunningStatus')}, "
            f"change tracking {tracks}, {planned.snapshots} snapshots"
        )
        for disk in planned.disks:
            self._write(
                f"disk {disk.key}: {disk.size} bytes, {disk.controller}, {disk.datastore_type}, "
                f"{'thin' if disk.is_thin else 'thick'}, {'encrypted' if disk.is_encrypted else 'plain'}, "
                f"{'a chain' if disk.has_parent else 'a base disk'}"
            )
        if planned.notes:
            self._write(f"disks left out: {len(planned.notes)}")

    def _with_snapshot(self, planned: Plan, journal: Journal[CaptureEntry]) -> None:
        session = self._site.session
        name = snapshot.new_name(OWNER)
        with sweep.undone(session, planned.found.ref, journal, entry_of(session, planned, name, journal.entry)):
            began = time.monotonic()
            made = moment.freeze(session, planned, name, [])
            self._write(f"make a snapshot: ok, {time.monotonic() - began:.1f} s")
            held = Held(session, planned, made.snapshot, switch.why_off(session, planned), [])
            frozen = Frozen(session, planned.found.name, planned.found.moid, made.snapshot.moid, planned.datacenter)
            for disk in held.disks:
                self._read(frozen, disk)
                self._ask(held, disk)
            with self._step("the snapshot is still there and unchanged"):
                held.verify()
            began = time.monotonic()
        self._write(f"remove the snapshot: ok, {time.monotonic() - began:.1f} s")

    def _read(self, frozen: Frozen, disk: VmDisk) -> None:
        sums: dict[str, tuple[str, str | None]] = {}
        for way in make_ways(self._site.options):
            reason = way.why_not(frozen, disk)
            if reason is not None:
                self._write(f"disk {disk.key} by {way.name}: no: {self._nameless(reason)}")
                continue
            began = time.monotonic()
            with self._step(f"disk {disk.key} by {way.name}", told=False):
                sums[way.name] = _sums(way, frozen, disk)
                self._write(f"disk {disk.key} by {way.name}: ok, {time.monotonic() - began:.1f} s")
        if not sums:
            self._fail(f"disk {disk.key}: no way can read it")
        for i, what in enumerate(("beginning", "end")):
            if len({pair[i] for pair in sums.values()} - {None}) > 1:
                self._fail(f"disk {disk.key}: the ways read different bytes at its {what}")

    def _ask(self, held: Held, disk: VmDisk) -> None:
        if disk.change_id is None:
            self._write(f"disk {disk.key}: no change id")
            return
        began = time.monotonic()
        with self._step(f"disk {disk.key}: areas in use", told=False):
            areas = tracking.ask(held.query(disk), disk.size, EVERYTHING)
            if isinstance(areas, Areas):
                total = sum(one.length for one in areas)
                said = f"{sum(1 for _ in areas)} with {total} bytes"
            else:
                said = f"cannot be told: {self._nameless(areas)}"
            self._write(f"disk {disk.key}: areas in use: {said}, {time.monotonic() - began:.1f} s")

    def _leftovers(self, found: Found) -> None:
        ours = [one for one in snapshot.of_machine(self._site.session, found.ref) if one.maker(OWNER)]
        if ours:
            self._fail(f"{len(ours)} snapshots of ours are left")
        if snapshot.needs_consolidation(self._site.session, found.ref):
            self._fail("the machine's disks need consolidation")

    @contextmanager
    def _step(self, what: str, *, told: bool = True) -> Iterator[None]:
        began, before = time.monotonic(), self._failures
        try:
            yield
        except VBackupError as error:
            self._fail(f"{what}: {type(error).__name__}: {self._nameless(str(error))}")
            return
        if told and self._failures == before:
            self._write(f"{what}: ok, {time.monotonic() - began:.1f} s")

    def _hide(self, notes: list[str]) -> None:
        for note in notes:
            self._fail(self._nameless(note))

    def _fail(self, what: str) -> None:
        self._failures += 1
        self._write(f"FAILED: {what}")

    def _nameless(self, text: str) -> str:
        """Return a message without what names this site."""
        options = self._site.options
        for name, shown in ((self._name, "MACHINE"), (options.host, "HOST"), (options.user, "USER")):
            text = text.replace(name, shown)
        for pattern, shown in _NAMES:
            text = pattern.sub(shown, text)
        return text


def selftest(site: Site, name: str, write: Write) -> bool:
    """Try everything on a machine, told line by line; return whether all went well."""
    return SelfTest(site, name, write).run()


def _sums(way: Way, frozen: Frozen, disk: VmDisk) -> tuple[str, str | None]:
    """Return digests of the disk's beginning and end; None for the end where a way has to read all before it."""
    with ExitStack() as stack:
        reader = stack.enter_context(way.open(frozen, disk))
        length = min(_READ, disk.size)
        first = _digest(reader, Range(0, length))
        return first, None if reader.is_sequential else _digest(reader, Range(disk.size - length, length))


def _digest(reader: DiskReader, wanted: Range) -> str:
    digest = hashlib.sha256()
    for block in reader.read(split([wanted], 1 << 20)):
        digest.update(block.data)
    return digest.hexdigest()
