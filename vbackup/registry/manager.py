"""The registry: every plugin of the entry-point group ``vbackup``, and what it brought."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Literal

from vbackup.api import (
    Codec,
    Executor,
    Hypervisor,
    JobEvent,
    JobFinished,
    JobProgress,
    JobStarted,
    PluginError,
    Target,
    Transport,
)
from vbackup.registry.loading import Loaded, adopt
from vbackup.registry.roles import ROLES

if TYPE_CHECKING:
    import click

GROUP = "vbackup"
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


class Registry:
    """The classes of all roles, by role and name, and the job events.

    Made by `load`; an empty one is for tests. A plugin counts as a whole or not at all.
    """

    def __init__(self) -> None:
        self._classes: dict[str, dict[str, type]] = {role.name: {} for role in ROLES}
        self._commands: dict[str, click.Command] = {}
        self._owners: dict[tuple[str, str], str] = {}
        self._loaded: list[Loaded] = []
        self._plugins: list[PluginInfo] = []
        self._complained: set[tuple[str, str]] = set()
        self._trace = _to_stderr if os.environ.get("VBACKUP_TRACE_HOOKS") == "1" else None

    @classmethod
    def load(cls, *, disabled: Collection[str] = ()) -> Registry:
        """Take in every installed plugin but those in ``disabled`` and ``$VBACKUP_DISABLED_PLUGINS`` (``a,b``).

        A third-party plugin that is broken is logged, listed in `plugins` and left out.

        Raises: `PluginError` when a built-in one is broken.
        """
        named = {name.strip() for name in os.environ.get("VBACKUP_DISABLED_PLUGINS", "").split(",")}
        registry = cls()
        for entry in _entries():
            registry._take(entry, skip=entry.name in named.union(disabled))
        return registry

    @property
    def hypervisors(self) -> Mapping[str, type[Hypervisor]]:
        """Hypervisor classes by ``type:``."""
        return self._classes["hypervisors"]

    @property
    def transports(self) -> Mapping[str, type[Transport]]:
        """Transport classes by ``type:``."""
        return self._classes["transports"]

    @property
    def codecs(self) -> Mapping[str, type[Codec]]:
        """Codec classes by ``type:``."""
        return self._classes["codecs"]

    @property
    def targets(self) -> Mapping[str, type[Target]]:
        """Target classes by ``type:``."""
        return self._classes["targets"]

    @property
    def executors(self) -> Mapping[str, type[Executor]]:
        """Executor classes by ``type:``."""
        return self._classes["executors"]

    @property
    def commands(self) -> Mapping[str, click.Command]:
        """Commands of plugins by name."""
        return self._commands

    @property
    def plugins(self) -> Sequence[PluginInfo]:
        """All plugins that were found, good or not: built-in ones first, then by name."""
        return tuple(self._plugins)

    def register(self, plugin: object, name: str) -> None:
        """Take in a plugin that is at hand. Raises: `PluginError` when it is broken; then nothing of it counts."""
        self._add(plugin, PluginInfo(name, origin="", version="", builtin=False))

    def emit_started(self, event: JobStarted) -> None:
        """Tell all plugins. What one of them raises is logged, once, and goes no further."""
        self._emit("vbackup_job_started", event)

    def emit_progress(self, event: JobProgress) -> None:
        """Tell all plugins; see `emit_started`."""
        self._emit("vbackup_job_progress", event)

    def emit_finished(self, event: JobFinished) -> None:
        """Tell all plugins; see `emit_started`."""
        self._emit("vbackup_job_finished", event)

    def _take(self, entry: EntryPoint, *, skip: bool) -> None:
        info = _info(entry)
        if skip:
            self._plugins.append(_with(info, "disabled"))
            return
        try:
            self._add(_import(entry), info)
        except PluginError as error:
            if info.builtin:
                raise PluginError(
                    f"the built-in plugin {entry.name!r} is broken: {error.message}",
                    hint=f"Reinstall vbackup, or run without it: VBACKUP_DISABLED_PLUGINS={entry.name}",
                ) from error
            self._plugins.append(_with(info, "broken", error.message))
            _log.warning("plugin %r of %s is left out: %s", entry.name, info.origin, error.message)

    def _add(self, plugin: object, info: PluginInfo) -> None:
        if info.name in {other.name for other in self._plugins}:
            raise PluginError(f"there is another plugin named {info.name!r}")
        loaded = adopt(plugin, info.name, self._trace)
        brings: dict[str, Mapping[str, object]] = {**loaded.classes, "commands": loaded.commands}
        for role, names in brings.items():
            for name in names:
                if owner := self._owners.get((role, name)):
                    raise PluginError(f"{role} {name!r} of plugin {info.name!r} is already that of plugin {owner!r}")
        for role, classes in loaded.classes.items():
            self._classes[role].update(classes)
        self._commands.update(loaded.commands)
        self._owners.update({(role, name): info.name for role, names in brings.items() for name in names})
        self._loaded.append(loaded)
        roles = {role: sorted(names) for role, names in brings.items() if names}
        self._plugins.append(_with(info, "ok", roles=roles))

    def _emit(self, hook: str, event: JobEvent) -> None:
        for loaded in self._loaded:
            try:
                getattr(loaded.hooks, hook)(event=event)
            except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything; it must not stop a backup
                if (loaded.name, hook) not in self._complained:
                    self._complained.add((loaded.name, hook))
                    _log.exception("plugin %r: %s raised %s", loaded.name, hook, type(error).__name__)


def _entries() -> list[EntryPoint]:
    # The same distribution may be seen twice (installed and on the path); its entry points are equal then.
    unique = {(entry.name, entry.value): entry for entry in reversed(list(entry_points(group=GROUP)))}
    return sorted(unique.values(), key=lambda entry: (not _info(entry).builtin, entry.name))


def _info(entry: EntryPoint) -> PluginInfo:
    origin = entry.dist.name if entry.dist else ""
    return PluginInfo(entry.name, origin, entry.dist.version if entry.dist else "", builtin=origin == "vbackup")


def _with(
    info: PluginInfo,
    status: Literal["ok", "broken", "disabled"],
    error: str = "",
    roles: Mapping[str, Sequence[str]] | None = None,
) -> PluginInfo:
    return PluginInfo(info.name, info.origin, info.version, info.builtin, status, error, roles or {})


def _import(entry: EntryPoint) -> object:
    try:
        plugin: object = entry.load()
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when imported
        raise PluginError(f"{entry.value} cannot be imported: {type(error).__name__}: {error}") from error
    return plugin


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
