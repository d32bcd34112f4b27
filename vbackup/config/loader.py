"""From a file to a checked configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vbackup.api import ConfigError, VBackupError
from vbackup.config.build import model, open_model
from vbackup.config.document import Document, Place, Problem, dotted, failed, read
from vbackup.config.groups import doubled_members
from vbackup.config.models import Config
from vbackup.config.problems import explain, suggestion
from vbackup.config.references import unknown_references
from vbackup.guards.blame import is_ours
from vbackup.registry import Registry

T = TypeVar("T")
SYSTEM = Path("/etc/vbackup/vbackup.yaml")


def find(explicit: Path | None) -> Path:
    """Return the file to load: ``explicit``, ``$VBACKUP_CONFIG``, ``./vbackup.yaml`` or `SYSTEM`, the first there is.

    The first two are taken at their word. Raises: `ConfigError` when there is none.
    """
    if explicit is not None:
        return explicit
    if named := os.environ.get("VBACKUP_CONFIG"):
        return Path(named)
    for path in (Path("vbackup.yaml"), SYSTEM):
        if path.exists():
            return path
    raise ConfigError(
        f"there is no configuration: neither ./vbackup.yaml nor {SYSTEM}",
        hint="Name one with -c FILE or $VBACKUP_CONFIG; `vbackup schema` describes it.",
    )


def load(path: Path, registry: Registry) -> Config:
    """Load and check the file at ``path``.

    Raises: `ConfigError` listing every problem, one a line, as ``file:line:column: path: what is wrong``; `PluginError`
    when the checks of a plugin's options fail themselves.
    """
    document = read(path)
    if not isinstance(document.data, dict):
        raise failed(document.name, [Problem(Place(1, 1), "", "the file must be a mapping of sections (targets: ...)")])
    config, problems = _validate(document, registry)
    problems += unknown_references(document) + doubled_members(document) + _without_files(document, registry)
    if problems or config is None:
        raise failed(document.name, problems)
    return config


def _validate(document: Document, registry: Registry) -> tuple[Config | None, list[Problem]]:
    config, details = _checked(model(registry, _types(document.data)), document, registry)
    if config is not None:
        return config, []
    # What is wrong is told by all that could be right; of what takes anything there is only what was found already.
    shape, schema = open_model(registry)
    details = _checked(shape, document, registry)[1] or details

    def unknown(section: str, name: str) -> str:
        return _unknown_type(registry, section, name)

    return None, explain(details, document, schema, unknown)


def _checked(shape: type[Config], document: Document, registry: Registry) -> tuple[Config | None, list[ErrorDetails]]:
    """Return the configuration, or what is wrong with it."""
    try:
        try:
            return shape.model_validate(document.data), []
        except ValidationError as error:
            return None, error.errors(include_url=False)
    except BaseException as error:  # a stranger's options may check themselves by code of their own
        if is_ours(error) or isinstance(error, VBackupError):
            raise
        raise registry.explained(error, "its options were checked") from error


def _types(data: Any) -> set[str]:
    """Return all that stands behind a ``type:``, wherever that is."""
    if isinstance(data, list):
        return set().union(*map(_types, data))
    if not isinstance(data, dict):
        return set()
    own = {data["type"]} if isinstance(data.get("type"), str) else set()
    return own.union(*map(_types, data.values()))


def _without_files(document: Document, registry: Registry) -> list[Problem]:
    """Find targets that need files on transports that have none. Works on any document, valid or not."""
    targets = _entries_of(document, "targets", registry.targets)
    transports = _entries_of(document, "transports", registry.transports)
    problems = []
    for alias, (kind, entry) in targets.items():
        found = transports.get(str(entry.get("transport")))
        if kind.needs_files and found is not None and not found[0].has_files:
            path = ("targets", alias, "transport")
            with_files = ", ".join(sorted(name for name, cls in registry.transports.items() if cls.has_files)) or "none"
            message = (
                f"a target of type {kind.name!r} needs files, and a transport of type {found[0].name!r} has none "
                f"(types that have: {with_files})"
            )
            problems.append(Problem(document.values[path], dotted(path), message))
    return problems


def _entries_of(
    document: Document, section: str, classes: Mapping[str, type[T]]
) -> dict[str, tuple[type[T], Mapping[str, Any]]]:
    """Return the class and the data of those entries of a section that have a known type."""
    entries = document.data.get(section)
    found = entries.items() if isinstance(entries, dict) else ()
    return {
        alias: (classes[str(entry["type"])], entry)
        for alias, entry in found
        if isinstance(entry, dict) and str(entry.get("type")) in classes
    }


def _unknown_type(registry: Registry, section: str, name: str) -> str:
    for plugin in registry.plugins:
        if plugin.name == name and plugin.status == "broken":
            return f"the plugin {name!r} is broken: {plugin.error}"
        if plugin.name == name and plugin.status == "disabled":
            return f"the plugin {name!r} is disabled"
    known = sorted(getattr(registry, section))
    return f"unknown type {name!r}{suggestion(name, known)} (known: {', '.join(known) or 'none'})"
