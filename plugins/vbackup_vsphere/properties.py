"""Reading leaf properties with the PropertyCollector.

pyvmomi's lazy attributes are never touched: each is a request of its own, and some servers answer an unset one wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyVmomi import vim, vmodl

from vbackup.api import Unavailable


class Properties(dict[str, Any]):
    """Leaf properties by their paths. ``[path]`` of one that is absent raises `Unavailable`."""

    def __missing__(self, path: str) -> Any:
        raise Unavailable(f"{path} cannot be read now")


Row = tuple[Any, dict[str, Any]]
"""A managed object and its properties; those that are unset, or that the user may not read, are absent."""

_PAGE = 500
_Collector = vmodl.query.PropertyCollector


def moid(ref: Any) -> str:
    """Return a managed object's id, such as ``vm-57``."""
    return str(ref._GetMoId())  # noqa: SLF001 - pyvmomi's public name for it


def read_one(content: Any, ref: Any, paths: Sequence[str], *, whole: bool = False) -> Properties:
    """Return leaf properties of one object. Raises pyvmomi's faults, `Unavailable`.

    With ``whole`` what cannot be read is an error: what is absent then is sure to be unset.
    """
    spec = _filter([_Collector.ObjectSpec(obj=ref)], {type(ref): paths})
    for _, row in _retrieve(content.propertyCollector, spec, whole=whole):
        return row
    raise Unavailable(f"the host says nothing about {moid(ref)}")


def read_all(content: Any, kind: type, paths: Sequence[str]) -> list[Row]:
    """Return all objects of a kind in the inventory. Raises pyvmomi's faults, `Unavailable`."""
    view = given(content.viewManager.CreateContainerView(content.rootFolder, [kind], True), "a view of the inventory")
    try:
        return read_from(content, view, "view", "type", kind, paths)
    finally:
        view.DestroyView()


def read_from(
    content: Any, start: Any, path: str, proof: str, kind: type, paths: Sequence[str], *, whole: bool = False
) -> list[Row]:
    """Return the objects of a kind that ``path`` of ``start`` names. Raises pyvmomi's faults, `Unavailable`.

    ``proof`` is a property of ``start`` itself, which is asked for too: an answer without objects is none.
    """
    traverse = _Collector.TraversalSpec(name=path, type=type(start), path=path, skip=False)
    objects = [_Collector.ObjectSpec(obj=start, skip=False, selectSet=[traverse])]
    spec = _filter(objects, {type(start): [proof], kind: paths})
    rows = list(_retrieve(content.propertyCollector, spec, whole=whole))
    if not any(ref == start for ref, _ in rows):
        raise Unavailable(f"the host says nothing about {moid(start)}")
    return [(ref, row) for ref, row in rows if ref != start]


@contextmanager
def watching(content: Any, ref: Any, path: str) -> Iterator[Any]:
    """Give a collector of our own whose WaitForUpdatesEx tells when ``path`` of ``ref`` changes.

    The session's own collector has the filters of all threads.
    """
    collector = given(content.propertyCollector.CreatePropertyCollector(), "a collector of properties")
    try:
        collector.CreateFilter(_filter([_Collector.ObjectSpec(obj=ref)], {type(ref): [path]}), False)
        yield collector
    finally:
        collector.DestroyPropertyCollector()


def given(answer: Any, what: str) -> Any:
    """Return an answer that must be there. Raises: `Unavailable` when it is none.

    pyvmomi takes a page with status 200 that is no SOAP, as of a proxy, for an answer that is empty.
    """
    if answer is None:
        raise Unavailable(f"the host was asked for {what} and gave none")
    return answer


def _filter(objects: list[Any], paths: dict[type, Sequence[str]]) -> Any:
    wanted = [_Collector.PropertySpec(type=kind, pathSet=list(some), all=False) for kind, some in paths.items()]
    return _Collector.FilterSpec(objectSet=objects, propSet=wanted)


def _raise_hidden(found: Any, *, whole: bool) -> None:
    """A session that has ended shows as properties that are missing: what is unset must not be taken for that."""
    for missing in found.missingSet or ():
        if whole or isinstance(missing.fault, vim.fault.NotAuthenticated):
            raise missing.fault


def _retrieve(collector: Any, spec: Any, *, whole: bool) -> Iterator[tuple[Any, Properties]]:
    page = collector.RetrievePropertiesEx([spec], _Collector.RetrieveOptions(maxObjects=_PAGE))
    while page is not None:
        for found in page.objects or ():
            _raise_hidden(found, whole=whole)
            yield found.obj, Properties({change.name: change.val for change in found.propSet or ()})
        if not page.token:
            break
        page = given(collector.ContinueRetrievePropertiesEx(page.token), "the rest of a list")
