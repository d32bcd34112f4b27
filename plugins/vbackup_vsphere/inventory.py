"""Which machines there are, how they are called, and finding one again."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from pyVmomi import vim

from vbackup.api import MachineRef, NotFound, Unavailable
from vbackup_vsphere.properties import Row, moid
from vbackup_vsphere.session import Session

_PATHS = (
    "name",
    "parent",
    "parentVApp",
    "config.instanceUuid",
    "config.template",
    "config.managedBy",
    "summary.config.instanceUuid",
    "runtime.powerState",
    "runtime.connectionState",
    "customValue",
)
_AGENTS = "com.vmware.vim.eam"  # the ESX Agent Manager: its machines (vCLS) are made anew from nothing


@dataclass(frozen=True, slots=True)
class Found:
    """A machine of the inventory."""

    ref: Any = field(repr=False)
    name: str
    """As it is listed: unique."""
    uuid: str
    """Its instanceUuid; its managed object id where that cannot be read."""
    running: bool
    folder: str
    is_template: bool
    title: str = ""
    """Its name in vSphere."""

    @property
    def moid(self) -> str:
        """Its managed object id, such as ``vm-57``."""
        return moid(self.ref)


Labels = Callable[[Session, list[Row]], dict[str, frozenset[tuple[str, str]]]]


class Inventory:
    """The machines of a session. Thread-safe."""

    def __init__(self, session: Session, labels: Labels) -> None:
        self._session = session
        self._labels = labels
        self._lock = threading.Lock()
        self._listing = threading.Lock()
        self._known: dict[str, Found] = {}

    def machines(self) -> list[MachineRef]:
        """See `Hypervisor.machines`."""
        rows = self._rows()
        labels = self._labels(self._session, rows)
        return [
            MachineRef(one.name, one.uuid, one.running, one.folder, labels.get(one.moid, frozenset()))
            for one in self._learn(rows, _Folders(self._session))
        ]

    def find(self, name: str) -> Found:
        """Return a machine by the name that it is or was listed by. Raises: `NotFound`, `Unavailable`.

        One that was renamed since then is found by its object and its instanceUuid, unless another one has its name.
        """
        known, has_name = self._remembered(name)
        if known is not None and has_name:
            return known
        with self._listing:  # whoever waited for another one's list may find it there
            known, has_name = self._remembered(name)
            if not has_name:
                known = next((one for one in self._learn(self._rows(), None) if one.name == name), known)
        if known is None:
            raise NotFound(
                f"{self._session.alias} has no machine {name}",
                hint="was it renamed? upper and lower case are told apart",
            )
        return known

    def by_uuid(self, uuid: str) -> Any | None:
        """Return the object of the machine with an instanceUuid, None when there is none (any more)."""
        rows = self._session.list(vim.VirtualMachine, "config.instanceUuid", "summary.config.instanceUuid")
        return next((ref for ref, row in rows if _uuid(ref, row) == uuid), None)

    def _remembered(self, name: str) -> tuple[Found | None, bool]:
        """Return the machine that was listed by a name, None if it is gone, and whether it still has that name."""
        with self._lock:
            known = self._known.get(name)
        if known is None:
            return None, False
        paths = ("name", "config.instanceUuid", "summary.config.instanceUuid", "config.template")
        try:
            row = self._session.get(known.ref, *paths)
        except NotFound:
            return None, False
        if _uuid(known.ref, row) != known.uuid or bool(row.get("config.template")) != known.is_template:
            return None, False
        return known, row.get("name") == known.title

    def _rows(self) -> list[Row]:
        rows = self._session.list(vim.VirtualMachine, *_PATHS)
        return [(ref, row) for ref, row in rows if "name" in row and not _is_agent(row)]

    def _learn(self, rows: list[Row], folders: _Folders | None) -> list[Found]:
        found = [
            Found(
                ref=ref,
                name=row["name"],
                title=row["name"],
                uuid=_uuid(ref, row),
                running=row.get("runtime.powerState") == "poweredOn",
                folder=folders.path(row) if folders is not None else "",
                is_template=bool(row.get("config.template")),
            )
            for ref, row in rows
        ]
        named = sorted(unique(found), key=lambda one: one.name)
        with self._lock:
            # Those that are gone are kept: a machine that was renamed is still found by the name it was listed by.
            self._known.update({one.name: one for one in named})
        return named


def unique(found: Iterable[Found]) -> list[Found]:
    """Tell machines of one name, in different folders, apart by their ids."""
    named = list(found)
    while True:
        count = Counter(one.name for one in named)
        if all(times == 1 for times in count.values()):
            return named
        named = [replace(one, name=f"{one.name} ({one.moid})") if count[one.name] > 1 else one for one in named]


def require_reachable(session: Session, found: Found) -> None:
    """Raise `Unavailable` unless the machine can be worked with now."""
    state = str(session.get(found.ref, "runtime.connectionState").get("runtime.connectionState", "connected"))
    why = {
        "disconnected": "its ESXi host is not connected to vCenter",
        "orphaned": "it is orphaned: its ESXi host does not know it any more",
        "inaccessible": "it is inaccessible: its files cannot be reached",
        "invalid": "it is invalid: its configuration cannot be read",
    }.get(state)
    if why is not None:
        raise Unavailable(f"{found.name} cannot be captured: {why}")


def _uuid(ref: Any, row: dict[str, Any]) -> str:
    uuid = row.get("config.instanceUuid") or row.get("summary.config.instanceUuid")
    return re.sub(r"[^A-Za-z0-9-]", "_", str(uuid or moid(ref)))  # it becomes part of a file's name


def _is_agent(row: dict[str, Any]) -> bool:
    managed = row.get("config.managedBy")
    if managed is None:
        return False
    return managed.extensionKey == _AGENTS or (bool(re.match("vCLS", row["name"])) and managed.type == "cluster-agent")


class _Folders:
    """The names of what machines can be in."""

    def __init__(self, session: Session) -> None:
        self._up: dict[str, tuple[str, Any]] = {}
        for kind in (vim.Folder, vim.Datacenter, vim.VirtualApp):
            paths = ["name", "parent"] + (["parentFolder"] if kind is vim.VirtualApp else [])
            for ref, row in session.list(kind, *paths):
                parent = row.get("parentFolder") or row.get("parent")
                self._up[moid(ref)] = (row.get("name", ""), parent)

    def path(self, row: dict[str, Any]) -> str:
        """Return ``/DC0/vm/prod`` of a machine."""
        names: list[str] = []
        here = row.get("parent") or row.get("parentVApp")
        while here is not None and moid(here) in self._up:
            name, here = self._up[moid(here)]
            names.append(name)
        return "".join(f"/{name}" for name in reversed(names))
