"""Reading leaf properties with the PropertyCollector.

pyvmomi's lazy attributes are never touched: each is a request of its own, and some servers answer an unset one wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyVmomi import vim, vmodl

Row = tuple[Any, dict[str, Any]]
"""A managed object and its properties; those that are unset, or that the user may not read, are absent."""

_PAGE = 500
_Collector = vmodl.query.PropertyCollector


def moid(ref: Any) -> str:
    """Return a managed object's id, such as ``vm-57``."""
    return str(ref._GetMoId())  # noqa: SLF001 - pyvmomi's public name for it


def read_one(content: Any, ref: Any, paths: Sequence[str]) -> dict[str, Any]:
    """Return leaf properties of one object. Raises pyvmomi's faults."""
    spec = _filter([_Collector.ObjectSpec(obj=ref)], type(ref), paths)
    return next((row for _, row in _retrieve(content.propertyCollector, spec)), {})


def read_all(content: Any, kind: type, paths: Sequence[str]) -> list[Row]:
    """Return all objects of a kind in the inventory. Raises pyvmomi's faults."""
    view = content.viewManager.CreateContainerView(content.rootFolder, [kind], True)
    try:
        traverse = _Collector.TraversalSpec(name="view", type=vim.view.ContainerView, path="view", skip=False)
        objects = [_Collector.ObjectSpec(obj=view, skip=True, selectSet=[traverse])]
        return list(_retrieve(content.propertyCollector, _filter(objects, kind, paths)))
    finally:
        view.DestroyView()


@contextmanager
def watching(content: Any, ref: Any, path: str) -> Iterator[Any]:
    """Give a collector of our own whose WaitForUpdatesEx tells when ``path`` of ``ref`` changes.

    The session's own collector has the filters of all threads.
    """
    collector = content.propertyCollector.CreatePropertyCollector()
    try:
        collector.CreateFilter(_filter([_Collector.ObjectSpec(obj=ref)], type(ref), [path]), False)
        yield collector
    finally:
        collector.DestroyPropertyCollector()


def _filter(objects: list[Any], kind: type, paths: Sequence[str]) -> Any:
    wanted = _Collector.PropertySpec(type=kind, pathSet=list(paths), all=False)
    return _Collector.FilterSpec(objectSet=objects, propSet=[wanted])


def _raise_hidden(found: Any) -> None:
    """A session that has ended shows as properties that are missing: what is unset must not be taken for that."""
    for missing in found.missingSet or ():
        if isinstance(missing.fault, vim.fault.NotAuthenticated):
            raise missing.fault


def _retrieve(collector: Any, spec: Any) -> Iterator[Row]:
    page = collector.RetrievePropertiesEx([spec], _Collector.RetrieveOptions(maxObjects=_PAGE))
    while page is not None:
        for found in page.objects:
            _raise_hidden(found)
            yield found.obj, {change.name: change.val for change in found.propSet}
        page = collector.ContinueRetrievePropertiesEx(page.token) if page.token else None
