"""Entry points: which plugins are installed, and by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Literal

from vbackup.api import PluginError

GROUP = "vbackup"


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin as it was found: ``origin`` is its distribution, ``error`` says why it is not in use."""

    name: str
    origin: str
    version: str
    builtin: bool
    status: Literal["ok", "broken", "disabled"] = "ok"
    error: str = ""
    roles: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The names it registered, by role (``codecs``: ``["zstd"]``), and those of its ``commands``."""


def entries() -> list[tuple[EntryPoint, PluginInfo]]:
    """Find all plugins: built-in ones first, then by name."""
    # The same distribution may be seen twice (installed and on the path); its entry points are equal then.
    unique = {(entry.name, entry.value): entry for entry in reversed(list(entry_points(group=GROUP)))}
    of = cache(_origin)
    found = [(entry, PluginInfo(entry.name, *of(entry.dist))) for entry in unique.values()]
    return sorted(found, key=lambda each: (not each[1].builtin, each[1].name))


def _origin(dist: Distribution | None) -> tuple[str, str, bool]:
    """Return its name, its version, and whether it is vbackup: all of its metadata is parsed for that."""
    return (dist.name, dist.version, dist.name == "vbackup") if dist else ("", "", False)


def imported(entry: EntryPoint) -> object:
    """Import a plugin's module. Raises: `PluginError`."""
    try:
        plugin: object = entry.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when imported
        raise PluginError(f"{entry.value} cannot be imported: {type(error).__name__}: {error}") from error
    return plugin
