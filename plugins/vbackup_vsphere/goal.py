"""What a restore is going to come to: which machine, where, with what. Nothing is made here yet."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vbackup.api import (
    AlreadyExists,
    Corrupt,
    MachineDescription,
    RestoreDisk,
    RestoreRequest,
    Unsupported,
)
from vbackup_vsphere import existing, foreign, kept, native, networks, placement, spec
from vbackup_vsphere.configuration import datastore_of
from vbackup_vsphere.devices import Place
from vbackup_vsphere.document import Config, Disk, Wanted
from vbackup_vsphere.existing import Existing
from vbackup_vsphere.placement import Placement
from vbackup_vsphere.spec import Identity, Order

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session

_NAME = 80  # characters that vSphere takes
_LARGEST = 62 << 40  # bytes of a VMDK on VMFS


@dataclass(frozen=True, slots=True)
class Goal:
    """What is going to be restored."""

    identity: Identity
    """Who it is when all is done."""
    order: Order
    """What to make; under another name than its own when it is to replace a machine."""
    placement: Placement
    disks: Mapping[str, Disk]
    """By the restore point's key."""
    sizes: Mapping[str, int]
    notes: list[str]
    nvram: bytes | None
    existing: Existing | None
    kept: Mapping[Place, Any]
    """Disks of the old machine that are not in the restore point, and go over to the new one."""
    keeps_old: bool
    """The old machine has such disks for which the new one has no place: it stays, under another name."""

    @property
    def config(self) -> Config:
        """Its configuration."""
        return self.order.config


def decide(
    session: Session,
    machine: MachineDescription,
    disks: Sequence[RestoreDisk],
    files: Mapping[str, bytes],
    request: RestoreRequest,
    token: str,
) -> Goal:
    """Decide, and refuse what can be refused.

    Raises: `AlreadyExists`, `NotFound`, `NoSpace`, `Busy`, `Unsupported`, `AccessDenied`, `Corrupt`, `ConfigError`.
    """
    _require_machine(machine, request)
    notes: list[str] = []
    wanted = [disk for disk in disks if not disk.is_memory]
    if len(wanted) < len(disks):
        notes.append(
            "its memory is left out, and stays in the restore point: vSphere's API takes none from outside; the "
            "machine starts as after a power cut, with its disks of that moment"
        )
    notes += _sizes(wanted)
    is_native = native.is_native(machine)
    asked = (native if is_native else foreign).convert(machine, wanted, files)
    notes += asked.notes
    config = asked.config
    old = None
    if request.name is None:
        old = existing.find(session, config.instance_uuid, overwrite=request.overwrite)
    plugged = {networks.wanted(session, card) for card in config.cards}
    place = placement.choose(session, config.home, plugged, old.ref if old else None, notes)
    notes += _elsewhere(asked, place)
    identity = _identity(config, machine.name, request.name, old, notes)
    if old is None:
        _require_free(session, place, identity.name)
    placement.require_space(identity.name, sum(spec.rounded(disk.size) for disk in wanted), place.datastore, notes)
    made_as = identity if old is None else _beside(identity, token)
    order = Order(
        config=config,
        identity=made_as,
        version=placement.version(config.version, place, notes),
        datastore=place.datastore.name,
        networks=networks.backings(session, place.networks, config.cards),
        token=token,
    )
    others = existing.others(config, old)
    goes_over = all(kept.can_go_over(config, at) for at in others)
    notes += existing.notes(old, others, token, goes_over=goes_over)
    return Goal(
        identity=identity,
        order=order,
        placement=place,
        disks={disk.key: asked.disk(disk.key) for disk in wanted},
        sizes={disk.key: disk.size for disk in wanted},
        notes=notes,
        nvram=files.get(native.NVRAM) if is_native and config.efi else None,
        existing=old,
        kept=others if goes_over else {},
        keeps_old=not goes_over,
    )


def _elsewhere(asked: Wanted, place: Placement) -> Iterator[str]:
    for disk in asked.config.disks:
        was = datastore_of(disk.file)
        if was not in {"", asked.config.home.datastore, place.datastore.name}:
            yield f"disk {disk.key} was on the datastore {was}; it is on {place.datastore.name}"


def _require_machine(machine: MachineDescription, request: RestoreRequest) -> None:
    if request.disks:
        raise Unsupported(
            f"{machine.name}: single disks cannot be restored to vSphere",
            hint="restore all of it --as another name, or its disks to files with a hypervisor of files",
        )
    if request.format is not None:
        raise Unsupported(f"{machine.name}: vSphere's disks are VMDKs, not {request.format}", hint="leave --format out")
    name = request.name or machine.name
    if len(name) > _NAME:
        raise Unsupported(f"{name}: vSphere's names have at most {_NAME} characters", hint="restore --as a shorter one")


def _sizes(disks: Sequence[RestoreDisk]) -> Iterator[str]:
    for disk in disks:
        size = spec.rounded(disk.size)
        if not size or size > _LARGEST:
            raise Unsupported(f"disk {disk.key} has {disk.size} bytes; vSphere has disks of up to 62 TiB")
        if size != disk.size:
            yield f"disk {disk.key} is {size - disk.size} bytes larger: vSphere has multiples of {spec.UNIT}"


def _identity(config: Config, was: str, new: str | None, old: Existing | None, notes: list[str]) -> Identity:
    if new is not None:
        return Identity(new, str(uuids.uuid4()), str(uuids.uuid4()), keeps_macs=False)
    name = old.name if old else was
    if name != was:
        notes.append(f"the machine keeps its present name {name}; it was {was}")
    return Identity(name, _uuid(config.uuid), _uuid(config.instance_uuid), keeps_macs=True)


def _uuid(text: str) -> str:
    try:
        return str(uuids.UUID(text))
    except ValueError as error:
        raise Corrupt(f"{text[:80]!r} is not the UUID of a machine") from error


def _beside(identity: Identity, token: str) -> Identity:
    return Identity(f"{identity.name[:60]}-restore-{token}", identity.uuid, str(uuids.uuid4()), keeps_macs=True)


def _require_free(session: Session, place: Placement, name: str) -> None:
    index = session.content.searchIndex
    other = session.call(
        f"{session.alias}: looking for {name}", lambda: index.FindChild(place.folder, name), repeat=True
    )
    if other is not None:
        hint = "restore --as another name, or rename that one"
        raise AlreadyExists(f"there is another machine or folder of the name {name}", hint=hint)
