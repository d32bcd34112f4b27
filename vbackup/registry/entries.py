"""Entry points: which plugins are installed, and by what."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vbackup.api import PluginError
from vbackup.guards.blame import Blame, is_ours, told
from vbackup.registry.versions import lacking

if TYPE_CHECKING:
    import pluggy

GROUP = "vbackup"
DISABLED = "VBACKUP_DISABLED_PLUGINS"
_log = logging.getLogger(__name__)


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
    module: str = ""
    """What its entry point names."""
    hooks: Sequence[str] = ()
    """The hooks that it implements."""
    api_version: int | None = None
    """What its module states; None where it states nothing, or was not imported."""
    waits: bool = False
    """Whether it says what it brings: then that is imported when something of it is wanted, and not before."""

    @property
    def package(self) -> str:
        """The top of what its entry point names; empty for one that was registered by hand."""
        return self.module.partition(":")[0].partition(".")[0]

    def blame(self, what: str) -> Blame:
        """Return it as who is to blame for what ``what`` does."""
        return Blame(self.name, self.origin, self.builtin, what)


def entries() -> list[tuple[EntryPoint, PluginInfo]]:
    """Find all plugins: built-in ones first, then by name. Distributions that cannot be read are logged."""
    # The same distribution may be seen twice (installed and on the path); its entry points are equal then.
    unique = {(entry.name, entry.value): entry for entry in reversed(_entry_points())}
    of = cache(_origin)
    found = [(entry, PluginInfo(entry.name, *of(entry.dist), module=entry.value)) for entry in unique.values()]
    return sorted(found, key=lambda each: (not each[1].builtin, each[1].name))


def unwanted(known: Collection[str]) -> set[str]:
    """Return the names in ``$VBACKUP_DISABLED_PLUGINS`` (``a,b``). One that is none of ``known`` is logged."""
    names = {name.strip() for name in os.environ.get(DISABLED, "").split(",")}
    for name in sorted(names.difference(known, {""})):
        near = " or ".join(map(repr, difflib.get_close_matches(name, known)))
        _log.warning("%s: there is no plugin %r%s", DISABLED, name, f"; did you mean {near}?" if near else "")
    return names


def _entry_points() -> list[EntryPoint]:
    try:
        return list(entry_points(group=GROUP))
    except Exception:  # noqa: BLE001 - one file of any distribution, a plugin or not, may hold anything
        return _one_by_one()


def _one_by_one() -> list[EntryPoint]:
    found: dict[str, list[EntryPoint]] = {}
    for dist in distributions():
        name = _name(dist)
        if name in found:
            continue  # another of that name comes first on the path
        try:
            found[name] = list(dist.entry_points.select(group=GROUP))
        except Exception as error:  # noqa: BLE001 - as above
            found[name] = []
            _log.warning(
                "%s is left out, as its entry points cannot be read: %s (reinstall or remove it)",
                _place(dist), told(error),
            )  # fmt: skip
    return [entry for each in found.values() for entry in each]


def _origin(dist: Distribution | None) -> tuple[str, str, bool]:
    """Return its name, its version, and whether it is vbackup: all of its metadata is parsed for that."""
    if dist is None:
        return "", "", False
    name = _name(dist)
    return name, _version(dist), name == "vbackup"


def _name(dist: Distribution) -> str:
    """Return the name of a distribution, or that of the directory of its metadata, which may be unreadable."""
    try:
        name: str | None = dist.name
    except Exception:  # noqa: BLE001 - as above
        name = None
    return name or Path(_place(dist)).name


def _version(dist: Distribution) -> str:
    try:
        version: str | None = dist.version
    except Exception:  # noqa: BLE001 - as above
        version = None
    return version or ""


def _place(dist: Distribution) -> str:
    """Return where the metadata of a distribution is; there is no public word for that."""
    return str(getattr(dist, "_path", dist.locate_file("")))


def imported(entry: EntryPoint) -> object:
    """Import a plugin's module. Raises: `PluginError`."""
    try:
        plugin: object = entry.load()
    except BaseException as error:  # whatever a stranger's module does when imported
        if is_ours(error):
            raise
        raise PluginError(f"{entry.value} cannot be imported: {told(error)}{lacking(error, entry.module)}") from error
    return plugin


def implemented(hooks: pluggy.HookRelay) -> tuple[str, ...]:
    """Return the names of the hooks that a plugin implements; ``hooks`` is the relay of that plugin alone."""
    return tuple(sorted(name for name, caller in vars(hooks).items() if caller.get_hookimpls()))
