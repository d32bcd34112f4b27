"""Putting a machine back: as a new one, or in the place of the one that it was.

A machine is made by an import, marked as unfinished, and loses its mark with the call that gives it its name and its
identity: up to there everything goes back, from there on it is complete.
"""

from __future__ import annotations

import hashlib
import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vbackup.api import (
    HypervisorContext,
    MachineDescription,
    Restoration,
    RestoreDisk,
    RestoreRequest,
    SinkDisk,
    VBackupError,
)
from vbackup_undo.journal import Journal, Journals
from vbackup_vsphere import devices, firmware, inplace, kept, restore_journal, rights, settings, spec
from vbackup_vsphere.existing import replaced_name
from vbackup_vsphere.filling import Filling
from vbackup_vsphere.goal import Goal, decide
from vbackup_vsphere.importing import Import
from vbackup_vsphere.journal import CaptureEntry
from vbackup_vsphere.making import Making
from vbackup_vsphere.properties import moid
from vbackup_vsphere.readers import vddk
from vbackup_vsphere.restore_journal import RestoreEntry

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session

_device = vim.vm.device


@contextmanager
def restore(
    session: Session,
    context: HypervisorContext,
    machine: MachineDescription,
    disks: Sequence[RestoreDisk],
    files: Mapping[str, bytes],
    request: RestoreRequest,
) -> Iterator[Restoration]:
    """See `vbackup.api.Hypervisor.restore`. Nothing is made before the first disk is written."""
    token = restore_journal.new_token()
    name = hashlib.sha256((request.name or machine.name).encode()).hexdigest()[:16]
    with restore_journal.journals(context).open(name) as journal, ExitStack() as stack:
        restore_journal.undo(session, journal)  # what a dead restore left must not be taken for somebody's
        goal = decide(session, machine, disks, files, request, token)
        rights.require(session, goal)
        if goal.existing is not None:  # no capture of it may be under way, nor begin, until the other one has its place
            stack.enter_context(Journals(context.state_dir, "capture", CaptureEntry).open(machine.id))
        entry = RestoreEntry(
            machine=goal.identity.name,
            token=token,
            folder=moid(goal.placement.folder),
            name=goal.order.identity.name,
            keeps_old=goal.keeps_old,
        )
        try:
            way = _way(session, goal)
            with way(session, goal, lambda: journal.write(entry), lambda vm: journal.update(vm=vm)) as making:
                yield OpenRestoration(session, goal, request, journal, making)
        finally:
            with suppress(VBackupError):  # then the journal stays, for a sweep
                restore_journal.undo(session, journal)


def _way(session: Session, goal: Goal) -> type[Making]:
    """Return how the disks are written: what takes a machine's place goes through VDDK where there is one."""
    if goal.existing is None:
        return Import
    reason = vddk.why_not(session.options.vddk)
    if reason is not None and reason != vddk.NOT_CONFIGURED:
        goal.notes.append(f"its disks are imported, and not written through VDDK: {reason}")
    return Filling if reason is None else Import


class OpenRestoration:
    """A `Restoration`."""

    def __init__(
        self, session: Session, goal: Goal, request: RestoreRequest, journal: Journal[RestoreEntry], making: Making
    ) -> None:
        self._session = session
        self._goal = goal
        self._request = request
        self._journal = journal
        self._making = making
        self.disks: Mapping[str, SinkDisk] = {key: making.sink(key) for key in goal.disks}

    @property
    def notes(self) -> Sequence[str]:
        """See `Restoration.notes`."""
        return self._goal.notes

    def finish(self) -> str:
        """See `Restoration.finish`."""
        goal, session = self._goal, self._session
        vm = self._making.complete()
        if goal.nvram is not None:
            goal.notes.extend(firmware.put(session, vm, goal.placement.datacenter, goal.nvram))
        goal.notes.extend(self._track(vm))
        if goal.existing is not None:
            inplace.make_way(session, goal, goal.existing, self._journal, str(uuids.uuid4()))
        self._complete(vm)
        self._remove_old()
        goal.notes.extend(self._settle_macs(vm))
        return self._end(vm)

    def _complete(self, vm: Any) -> None:
        """Take the mark away, with disks of the old machine going over if they can: all at once."""
        changes, others = self._last_changes(vm), self._goal.kept
        if others:
            changes.deviceChange = kept.additions(self._session, vm, others)
        try:
            self._reconfigure(vm, changes, "completing it")
        except VBackupError as error:
            if not others:
                raise
            old = replaced_name(self._goal.identity.name, self._goal.order.token)
            self._journal.update(keeps_old=True)
            self._goal.notes.append(f"the old machine stays as {old}, with its other disks: {error}")
            self._reconfigure(vm, self._last_changes(vm), "completing it")

    def _remove_old(self) -> None:
        """The new machine is complete, whatever happens to the old one: that stays journaled until it is gone."""
        entry = self._journal.entry
        try:
            if entry is not None:
                restore_journal.finish_old(self._session, entry)
        except VBackupError as error:
            old = replaced_name(self._goal.identity.name, self._goal.order.token)
            self._goal.notes.append(f"the old machine stays as {old}: {error}")
        else:
            self._journal.clear()

    def _last_changes(self, vm: Any) -> Any:
        """Return what makes the machine complete, all at once."""
        identity, config = self._goal.identity, self._goal.config
        changes: Any = vim.vm.ConfigSpec(extraConfig=[vim.option.OptionValue(key=settings.MARK, value="")])
        now = self._session.get(vm, "name", "config.instanceUuid", "config.uuid")
        if now.get("name") != identity.name:
            changes.name = identity.name
        if now.get("config.instanceUuid") != identity.instance_uuid:
            changes.instanceUuid = identity.instance_uuid
        if now.get("config.uuid") != identity.uuid:
            changes.uuid = identity.uuid
        if config.boot.order:
            changes.bootOptions = spec.boot_options(config, self._keys(vm))
        return changes

    def _track(self, vm: Any) -> Iterator[str]:
        """Switch changed-block tracking on where it was; its history begins anew in any case."""
        if self._goal.config.tracking:
            try:
                self._reconfigure(vm, vim.vm.ConfigSpec(changeTrackingEnabled=True), "switching change tracking on")
            except VBackupError as error:
                yield f"changed-block tracking, which was on, is off: {error}"

    def _keys(self, vm: Any) -> dict[int, int]:
        """Return which keys the devices have got, by those that they had."""
        config = self._goal.config
        made = self._devices(vm)
        places = devices.disk_places(made)
        keys = {disk.key: places[at].key for disk in config.disks if (at := devices.place(config, disk)) in places}
        return keys | {card.key: one.key for card, one in zip(config.cards, _cards(made), strict=False)}

    def _settle_macs(self, vm: Any) -> list[str]:
        """Have the cards keep their addresses: vCenter gives others while the old machine has them."""
        if not self._goal.identity.keeps_macs:
            return []
        edits = []
        for card, one in self._with_other_macs(vm):
            one.macAddress, one.addressType = card.mac, spec.mac_type(card.mac)
            edits.append(_device.VirtualDeviceSpec(operation=_device.VirtualDeviceSpec.Operation.edit, device=one))
        if not edits:
            return []
        try:
            self._reconfigure(vm, vim.vm.ConfigSpec(deviceChange=edits), "giving it its MAC addresses")
        except VBackupError as error:
            return [f"its network cards have other MAC addresses: {error}"]
        return [
            f"a network card has the MAC address {one.macAddress}: vSphere does not let it have {card.mac}"
            for card, one in self._with_other_macs(vm)
        ]

    def _with_other_macs(self, vm: Any) -> list[tuple[Any, Any]]:
        pairs = zip(self._goal.config.cards, _cards(self._devices(vm)), strict=False)
        return [(card, one) for card, one in pairs if card.mac and (one.macAddress or "").lower() != card.mac.lower()]

    def _devices(self, vm: Any) -> list[Any]:
        return list(self._session.get(vm, "config.hardware.device")["config.hardware.device"])

    def _reconfigure(self, vm: Any, changes: Any, why: str) -> None:
        what = f"{self._session.alias}: {self._goal.identity.name}: {why}"
        self._session.wait(self._session.call(what, lambda: vm.ReconfigVM_Task(changes)), what)

    def _end(self, vm: Any) -> str:
        goal, name = self._goal, self._goal.identity.name
        if goal.config.template:
            return self._or_note(f"the template {name} is there", f"{name} is no template", vm.MarkAsTemplate)
        said = f"the machine {name} is there"
        if not self._request.start:
            return said

        def start() -> None:
            self._session.wait(vm.PowerOnVM_Task(None), f"{self._session.alias}: starting {name}")

        return self._or_note(f"{said} and running", f"{said}, but could not be started", start)

    def _or_note(self, good: str, bad: str, work: Any) -> str:
        try:
            self._session.call(f"{self._session.alias}: {self._goal.identity.name}", work)
        except VBackupError as error:
            self._goal.notes.append(f"{bad}: {error}")
            return bad
        return good


def _cards(made: Sequence[Any]) -> list[Any]:
    cards = (one for one in made if isinstance(one, _device.VirtualEthernetCard))
    return sorted(cards, key=lambda one: int(one.key))
