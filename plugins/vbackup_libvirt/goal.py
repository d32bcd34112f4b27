"""What a restore is going to come to: which machine, which places, which document. Nothing is made here yet."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from xml.etree.ElementTree import Element

from vbackup.api import (
    AlreadyExists,
    Busy,
    Corrupt,
    MachineDescription,
    NotFound,
    RestoreDisk,
    RestoreRequest,
)
from vbackup_libvirt import awake, document, identity, state
from vbackup_libvirt.node import Machine, Node
from vbackup_libvirt.placement import Place, Placer, safe_name


@dataclass(frozen=True, slots=True)
class Goal:
    """What is going to be restored."""

    name: str
    uuid: str
    places: Sequence[Place]
    notes: list[str]
    domain: Element | None
    """What to define; None when only disks are written."""
    existing: Machine | None = None
    """The machine that is overwritten."""
    files: dict[PurePosixPath, bytes] = field(default_factory=dict)
    """Firmware variables and TPM state."""
    memory: RestoreDisk | None = None
    """What it goes on from."""
    obsolete: tuple[PurePosixPath, ...] = ()
    """Files that make way."""
    converted: Callable[[bool], Element] | None = None
    """If its system is to be converted: what to define when that has, or has not, given it virtio drivers."""


def decide(
    node: Node,
    machine: MachineDescription,
    disks: Sequence[RestoreDisk],
    files: Mapping[str, bytes],
    request: RestoreRequest,
    token: str,
) -> Goal:
    """Decide, and refuse what can be refused, for a machine of libvirt, or for some disks of any.

    ``token`` makes the names of temporary files.

    Raises: `AlreadyExists`, `NotFound`, `NoSpace`, `Busy`, `AccessDenied`, `Corrupt`.
    """
    placer = Placer(node, machine.id, request, token)
    if request.disks:
        return Goal(machine.name, "", placer.as_named(disks), _in_clear(machine, request.disks), None)
    assert machine.native is not None  # noqa: S101 - else it comes from another hypervisor
    domain = document.parse(machine.native.text)
    identity.clean(domain)
    _require_uuid(machine)
    memory = next((disk for disk in disks if disk.is_memory), None)
    disks = [disk for disk in disks if not disk.is_memory]
    if request.name is not None:
        goal = _new(node, request.name, domain, placer.as_new(request.name, disks), files)
        return _with_memory(goal, machine.name, memory, request)
    existing = find_existing(node, machine, request)
    sources = {disk.key: disk.source for disk in document.disks(domain)}
    if existing is None:
        places, notes = placer.as_it_was(machine.name, disks, sources)
    else:
        places, notes = placer.in_place(existing, disks, sources)
    goal = _same(node, machine, domain, places, notes, existing, files)
    return _with_memory(goal, machine.name, memory, request)


def _with_memory(goal: Goal, was: str, memory: RestoreDisk | None, request: RestoreRequest) -> Goal:
    """Have the machine go on from its memory, or tell why it does not."""
    assert goal.domain is not None  # noqa: S101 - for the type checker: a machine is restored
    if memory is None:
        return goal
    if why := awake.obstacle(request, was, goal.domain, [place.key for place in goal.places]):
        return replace(goal, notes=[*goal.notes, f"its memory is not restored: {why}"])
    return replace(goal, memory=memory)


def _in_clear(machine: MachineDescription, keys: Collection[str]) -> list[str]:
    if machine.native is None or machine.native.kind != document.KIND:
        return []
    known = document.disks(document.parse(machine.native.text))
    return list(identity.in_clear(disk for disk in known if disk.key in keys))


def _require_uuid(machine: MachineDescription) -> None:
    """The id of a restore point becomes a part of paths."""
    try:
        canonical = str(uuids.UUID(machine.id))
    except ValueError:
        canonical = ""
    if canonical != machine.id:
        raise Corrupt(f"{machine.name}: {machine.id[:80]!r} is not the UUID of a libvirt machine")


def find_existing(node: Node, machine: MachineDescription, request: RestoreRequest) -> Machine | None:
    """Return the machine to overwrite, None when it is not defined any more."""
    try:
        name = node.connection.domain(machine.id).name()
    except NotFound:
        require_free_name(node, machine.name)
        return None
    found = Machine(node, name, machine.id)
    if not request.overwrite:
        hint = "--overwrite replaces it, --as NAME makes a new machine beside it"
        raise AlreadyExists(f"the machine {name} is there already", hint=hint)
    if found.is_active:
        raise Busy(f"the machine {name} is running", hint="switch it off first", transient=False)
    return found


def require_free_name(node: Node, name: str) -> None:
    """Raise `AlreadyExists` when there is a machine of that name."""
    try:
        other = node.machine(name)
    except NotFound:
        return
    hint = "restore --as another name, or rename that one"
    raise AlreadyExists(f"there is another machine of the name {name}, with the UUID {other.uuid}", hint=hint)


def _new(node: Node, name: str, domain: Element, places: Sequence[Place], files: Mapping[str, bytes]) -> Goal:
    require_free_name(node, name)
    uuid = str(uuids.uuid4())
    notes = identity.place_disks(domain, places, node.host.exists, {})
    notes += identity.make_new(domain, name, uuid)
    own = _state_files(node, name, uuid, domain, files, None)
    return Goal(name, uuid, places, notes, domain, files=own)


def _same(
    node: Node,
    machine: MachineDescription,
    domain: Element,
    places: Sequence[Place],
    notes: list[str],
    existing: Machine | None,
    files: Mapping[str, bytes],
) -> Goal:
    name, kept, nvram = machine.name, {}, ""
    if existing is not None:
        live = existing.xml(inactive=True)
        name, nvram = existing.name, document.nvram(live)
        kept = {document.disk_key(element): element for element in live.iterfind("devices/disk")}
        notes += _left_behind(document.disks(live), document.disks(domain))
        notes += [f"the machine keeps its present name {name}; it was {machine.name}"] if name != machine.name else []
    identity.identify(domain, name, machine.id)
    notes += identity.place_disks(domain, places, node.host.exists, kept)
    own = _state_files(node, name, machine.id, domain, files, nvram)
    return Goal(name, machine.id, places, notes, domain, existing, own)


def _left_behind(present: Sequence[document.Disk], restored: Sequence[document.Disk]) -> list[str]:
    known = {disk.key for disk in restored}
    return [
        f"disk {disk.key}, added since, is not part of the machine any more; {disk.source} is left"
        for disk in sorted(present, key=lambda disk: disk.key)
        if disk.source and disk.key not in known
    ]


def _state_files(
    node: Node, name: str, uuid: str, domain: Element, files: Mapping[str, bytes], nvram: str | None
) -> dict[PurePosixPath, bytes]:
    """Return what goes beside the disks, by path, and point the document to it."""
    own: dict[PurePosixPath, bytes] = {}
    if document.nvram(domain):
        path = PurePosixPath(nvram) if nvram else node.config_dir / f"nvram/{safe_name(name)}-{uuid[:8]}_VARS.fd"
        identity.place_nvram(domain, path)
        if state.NVRAM in files:
            own[path] = files[state.NVRAM]
    if state.TPM in files:
        own |= {node.tpm_dir(uuid) / path: data for path, data in state.unpack(files[state.TPM]).items()}
    return own
