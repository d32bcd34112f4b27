"""Aliases that one entry uses to name another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vbackup.config.document import Document, Path_, Problem, dotted
from vbackup.config.groups import members
from vbackup.config.problems import suggestion


def unknown_references(document: Document) -> list[Problem]:
    """Find uses of aliases that are not there. Works on any document, valid or not."""
    problems = []
    for path, section, alias in _references(document.data):
        known = _mapping(document.data, section)
        if alias not in known:
            near = suggestion(alias, known) or (
                f"; known: {', '.join(map(str, known))}" if known else "; there are none"
            )
            message = f"there is no {section[:-1]} {alias!r}{near}"
            problems.append(Problem(document.values[path], dotted(path), message))
    return problems


def _references(data: Any) -> Iterator[tuple[Path_, str, str]]:
    """Yield each use of an alias: where it stands, the section that must have it, and the alias."""
    for name, target in _mapping(data, "targets").items():
        if isinstance(target, dict) and isinstance(target.get("transport"), str):
            yield ("targets", name, "transport"), "transports", target["transport"]
    for name, job in _mapping(data, "jobs").items():
        if isinstance(job, dict):
            yield from _references_of_job(("jobs", name), job)
    for path, machine in members(data):
        if ":" in machine:
            yield path, "hypervisors", machine.partition(":")[0]


def _references_of_job(path: Path_, job: dict[str, Any]) -> Iterator[tuple[Path_, str, str]]:
    if isinstance(job.get("target"), str):
        yield (*path, "target"), "targets", job["target"]
    for index, alias in enumerate(_list(job, "copies")):
        if isinstance(alias, str):
            yield (*path, "copies", index), "targets", alias
    for index, selector in enumerate(_list(job, "machines")):
        what = selector.removeprefix("!") if isinstance(selector, str) else ""
        if what.startswith("@") and len(what) > 1:
            yield (*path, "machines", index), "groups", what[1:]
        elif ":" in what:
            yield (*path, "machines", index), "hypervisors", what.partition(":")[0]
    for machines in _mapping(job, "exclude_disks"):
        if isinstance(machines, str) and ":" in machines:
            yield (*path, "exclude_disks", machines), "hypervisors", machines.partition(":")[0]


def _mapping(data: Any, key: str) -> dict[str, Any]:
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []
