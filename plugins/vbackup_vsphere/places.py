"""Paths of the inventory, as people write them: ``/DC0/vm/prod``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyVmomi import vim

from vbackup.api import NotFound

if TYPE_CHECKING:
    from vbackup_vsphere.session import Session

_DEEPEST = 64  # levels; a tree that is deeper is a loop


def path_of(session: Session, ref: Any) -> str:
    """Return the path of an object of the inventory; empty when it, or one above it, is gone or hidden from us."""
    names: list[str] = []
    for _ in range(_DEEPEST):
        if ref is None:
            return ""
        try:
            found = session.get(ref, "name", "parent")
        except NotFound:
            return ""
        parent = found.get("parent")
        if parent is None and isinstance(ref, vim.Folder):  # the root has a name that nobody writes
            return "/" + "/".join(reversed(names))
        names.append(str(found.get("name", "")))
        ref = parent
    return ""


def above(session: Session, ref: Any, kind: type) -> Any:
    """Return the nearest object of a kind at or above ``ref``, None without one."""
    for _ in range(_DEEPEST):
        if ref is None or isinstance(ref, kind):
            return ref
        ref = session.get(ref, "parent").get("parent")
    return None


def find(session: Session, path: str) -> Any:
    """Return the object at a path, None when there is none."""
    index = session.content.searchIndex
    wanted = path.strip("/")
    return session.call(f"{session.alias}: looking for {path}", lambda: index.FindByInventoryPath(wanted), repeat=True)


def all_paths(session: Session, kind: type) -> list[str]:
    """Return the paths of all objects of a kind, for messages."""
    return sorted(path for ref, _ in session.list(kind, "name") if (path := path_of(session, ref)))
