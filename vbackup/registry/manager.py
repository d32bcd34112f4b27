"""The registry: every plugin of the entry-point group ``vbackup``, and what it brought."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint
from types import FrameType
from typing import TYPE_CHECKING

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
    VBackupError,
)
from vbackup.guards.blame import Blame, told
from vbackup.guards.watch import IMPORT_PATIENCE, WATCH
from vbackup.registry.classes import Classes
from vbackup.registry.culprit import raised_by, running
from vbackup.registry.delivery import Listener
from vbackup.registry.entries import DISABLED, PluginInfo, entries, implemented, imported, unwanted
from vbackup.registry.loading import Adopted, Brought, Names, adopt
from vbackup.registry.roles import ROLES

if TYPE_CHECKING:
    import click

_log = logging.getLogger(__name__)


class Registry:
    """The classes of all roles, by role and name, and the job events.

    Made by `load`; an empty one is for tests. A plugin counts as a whole or not at all.

    A plugin whose module says what it brings (``VBACKUP_BRINGS``, names by role) waits, with all that it would import,
    until something of that is wanted: a command begins fast, and asks no more of a machine than it needs.
    """

    def __init__(self) -> None:
        self._classes: dict[str, Classes] = {role.name: Classes() for role in ROLES}
        self._commands: dict[str, click.Command] = {}
        self._owners: dict[tuple[str, str], str] = {}
        self._adopted: list[Adopted] = []
        self._waiting: dict[str, Adopted] = {}
        self._lock = threading.RLock()
        self._plugins: list[PluginInfo] = []
        self._listeners: dict[str, Listener] = {}
        self._trace = _to_stderr if os.environ.get("VBACKUP_TRACE_HOOKS") == "1" else None

    @classmethod
    def load(cls, *, disabled: Collection[str] = ()) -> Registry:
        """Take in every installed plugin but those in ``disabled`` and ``$VBACKUP_DISABLED_PLUGINS`` (``a,b``).

        A third-party plugin that is broken is logged, listed in `plugins` and left out.

        Raises: `PluginError` when a built-in one is broken that does not wait.
        """
        registry, found = cls(), entries()
        names = unwanted([entry.name for entry, _ in found]).union(disabled)
        for entry, info in found:
            registry._take(entry, info, skip=entry.name in names)
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
        """Commands of plugins by name. Raises: `PluginError` as `load`, for nothing waits any longer."""
        self._ask_all()
        return self._commands

    @property
    def plugins(self) -> Sequence[PluginInfo]:
        """All plugins that were found, good or not: built-in ones first, then by name. Raises: as `commands`."""
        self._ask_all()
        return tuple(self._plugins)

    def register(self, plugin: object, name: str) -> None:
        """Take in a plugin that is at hand. Raises: `PluginError` when it is broken; then nothing of it counts."""
        self._add(plugin, PluginInfo(name, origin="", version="", builtin=False))

    def blame(self, role: str, name: str, what: str) -> Blame:
        """Return who is to blame for what the class of a role with that name does; ``what`` names the instance."""
        owner = self._owners.get((role, name), "")
        info = next((each for each in self._plugins if each.name == owner), PluginInfo(owner, "", "", builtin=False))
        return info.blame(what)

    def explained(self, error: BaseException, about: str) -> VBackupError:
        """Return what to tell of an error that nobody expected: whose code raised it, as far as its traceback tells."""
        info = raised_by(error, self._strangers())
        if info is None:
            return VBackupError(f"{about}: unexpected {told(error)}")
        return info.blame("its code").error(f"raised {told(error)} ({about})")

    def at_work(self, frame: FrameType | None) -> PluginInfo | None:
        """Return the plugin whose code a thread is in."""
        return running(frame, self._strangers())

    def _strangers(self) -> dict[str, PluginInfo]:
        return {info.package: info for info in self._plugins if not info.builtin and info.package}

    def settle(self) -> None:
        """Wait for events that are under way; log what plugins that hang have missed."""
        for listener in list(self._listeners.values()):
            listener.settle()

    def emit_started(self, event: JobStarted) -> None:
        """Tell all plugins. What one of them raises is logged, once, and goes no further."""
        self._emit("vbackup_job_started", event)

    def emit_progress(self, event: JobProgress) -> None:
        """Tell all plugins; see `emit_started`."""
        self._emit("vbackup_job_progress", event)

    def emit_finished(self, event: JobFinished) -> None:
        """Tell all plugins; see `emit_started`."""
        self._emit("vbackup_job_finished", event)

    def _take(self, entry: EntryPoint, info: PluginInfo, *, skip: bool) -> None:
        if skip:
            self._plugins.append(replace(info, status="disabled"))
            return
        try:
            with WATCH.over(info.blame("its module").calling("import", patience=IMPORT_PATIENCE)):
                self._add(imported(entry), info)
        except PluginError as error:
            if info.builtin:
                raise _broken(entry.name, error) from error
            self._plugins.append(replace(info, status="broken", error=error.message))
            _log.warning("plugin %r of %s is left out: %s", entry.name, info.origin, error.message)

    def _add(self, plugin: object, info: PluginInfo) -> None:
        if info.name in {other.name for other in self._plugins}:
            raise PluginError(f"there is another plugin named {info.name!r}: remove one of the two")
        adopted = adopt(plugin, info.name, self._trace)
        brought = None if adopted.promised is not None else adopted.ask()
        roles: Names = brought.names if brought is not None else adopted.promised or {}
        for role, names in roles.items():
            for name in names:
                if owner := self._owners.get((role, name)):
                    taken = f"{role} {name!r} of plugin {info.name!r} is already that of plugin {owner!r}"
                    raise PluginError(f"{taken}: leave one of them out, {DISABLED}={owner} or {DISABLED}={info.name}")
        self._owners.update({(role, name): info.name for role, names in roles.items() for name in names})
        self._adopted.append(adopted)
        facts = replace(
            info, hooks=implemented(adopted.hooks), api_version=getattr(plugin, "VBACKUP_API_VERSION", None)
        )
        self._plugins.append(replace(facts, roles=roles, waits=brought is None))
        if brought is not None:
            self._take_in(brought)
            return
        self._waiting[info.name] = adopted
        for role, classes in self._classes.items():
            for name in roles.get(role, ()):
                classes.add_later(name, partial(self._ask, info.name))

    def _take_in(self, brought: Brought) -> None:
        for role, classes in brought.classes.items():
            self._classes[role].add(classes)
        self._commands.update(brought.commands)

    def _ask(self, name: str) -> None:
        """Let a plugin wait no longer. Raises: `PluginError`."""
        with self._lock:
            if name not in self._waiting:
                return
            info = next(info for info in self._plugins if info.name == name)
            try:
                with WATCH.over(info.blame("its hooks").calling("register", patience=IMPORT_PATIENCE)):
                    self._take_in(self._waiting[name].ask())
            except PluginError as error:
                self._leave_out(name, error)
            del self._waiting[name]

    def _leave_out(self, name: str, error: PluginError) -> None:
        """A plugin that waited is broken. Raises: `PluginError` for a built-in one, whenever it is wanted."""
        at, info = next((at, info) for at, info in enumerate(self._plugins) if info.name == name)
        if info.builtin:
            raise _broken(name, error) from error
        for role, names in info.roles.items():
            if role in self._classes:
                self._classes[role].drop(names)
        self._owners = {brought: owner for brought, owner in self._owners.items() if owner != name}
        self._adopted = [adopted for adopted in self._adopted if adopted.name != name]
        self._plugins[at] = replace(info, status="broken", error=error.message, roles={}, hooks=())
        _log.warning("plugin %r of %s is left out: %s", name, info.origin, error.message)

    def _ask_all(self) -> None:
        with self._lock:
            for name in list(self._waiting):
                self._ask(name)

    def _emit(self, hook: str, event: JobEvent) -> None:
        for adopted in list(self._adopted):
            if getattr(adopted.hooks, hook).get_hookimpls():
                self._listener(adopted).tell(hook, event)

    def _listener(self, adopted: Adopted) -> Listener:
        with self._lock:
            return self._listeners.setdefault(adopted.name, Listener(adopted.name, adopted.hooks))


def _broken(name: str, error: PluginError) -> PluginError:
    return PluginError(
        f"the built-in plugin {name!r} is broken: {error.message}",
        hint=f"Reinstall vbackup, or run without it: VBACKUP_DISABLED_PLUGINS={name}",
    )


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line if line.isprintable() else ascii(line)}\n")
