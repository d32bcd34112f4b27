"""Entry points: which plugins are installed, and by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal

from vbackup.api import PluginError
from vbackup.guards.blame import Blame, is_ours, told

if TYPE_CHECKING:
    import pluggy

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
    """Find all plugins: built-in ones first, then by name."""
    # The same distribution may be seen twice (installed and on the path); its entry points are equal then.
    unique = {(entry.name, entry.value): entry for entry in reversed(list(entry_points(group=GROUP)))}
    of = cache(_origin)
    found = [(entry, PluginInfo(entry.name, *of(entry.dist), module=entry.value)) for entry in unique.values()]
    return sorted(found, key=lambda each: (not each[1].builtin, each[1].name))


def _origin(dist: Distribution | None) -> tuple[str, str, bool]:
    """Return its name, its version, and whether it is vbackup: all of its metadata is parsed for that."""
    return (dist.name, dist.version, dist.name == "vbackup") if dist else ("", "", False)


def imported(entry: EntryPoint) -> object:
    """Import a plugin's module. Raises: `PluginError`."""
    try:
        plugin: object = entry.load()
    except BaseException as error:  # whatever a stranger's module does when imported
        if is_ours(error):
            raise
        raise PluginError(f"{entry.value} cannot be imported: {told(error)}") from error
    return plugin


def implemented(hooks: pluggy.HookRelay) -> tuple[str, ...]:
    """Return the names of the hooks that a plugin implements; ``hooks`` is the relay of that plugin alone."""
    return tuple(sorted(name for name, caller in vars(hooks).items() if caller.get_hookimpls()))
