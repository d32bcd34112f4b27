"""Taking in one plugin: all that it brings is checked before any of it counts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from vbackup.api import PluginError
from vbackup.api.hooks import Hooks
from vbackup.guards.blame import is_ours, told, told_value
from vbackup.registry.commands import call, commands
from vbackup.registry.roles import ROLES, Role
from vbackup.registry.versions import check_stated

if TYPE_CHECKING:
    import click


Names = Mapping[str, Sequence[str]]
"""Names by role; those of commands under ``commands``."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What a plugin brings: classes by role and name, and commands by name."""

    classes: Mapping[str, Mapping[str, type]]
    commands: Mapping[str, click.Command]

    @property
    def names(self) -> Names:
        """What it is, by name."""
        roles: dict[str, Mapping[str, object]] = {**self.classes, "commands": self.commands}
        return {role: sorted(names) for role, names in roles.items() if names}


@dataclass(frozen=True, slots=True)
class Adopted:
    """A plugin whose hooks were found good: it has a hook caller of its own."""

    name: str
    hooks: pluggy.HookRelay
    promised: Names | None
    """The names of all that it brings, where its module says so."""

    def ask(self) -> Brought:
        """Check and collect what it registers. Raises: `PluginError` with what is wrong, not naming the plugin."""
        with _settled("its hooks"):
            return self._asked()

    def _asked(self) -> Brought:
        brought = Brought({role.name: _collect(self.hooks, role) for role in ROLES}, commands(self.hooks))
        if self.promised is not None and brought.names != self.promised:
            raise PluginError(f"it brings {brought.names}, and says that it brings {self.promised}")
        return brought


def adopt(plugin: object, name: str, trace: Callable[[str], None] | None = None) -> Adopted:
    """Check the hooks of ``plugin`` (a module or an object with hook implementations).

    Each plugin gets a manager of its own, so that what one raises never keeps another from being called.

    Raises: `PluginError` with what is wrong, not naming the plugin.
    """
    with _settled("its module"):
        check_stated(plugin)
        manager = pluggy.PluginManager("vbackup")
        manager.add_hookspecs(Hooks)
        if trace is not None:
            _trace(manager, name, trace)
        _register(manager, plugin, name)
        return Adopted(name, manager.hook, _promised(plugin))


@contextmanager
def _settled(what: str) -> Iterator[None]:
    """Let nothing out but `PluginError`: what is looked at (attributes, metaclasses, mappings) may be code."""
    try:
        yield
    except PluginError:
        raise
    except BaseException as error:
        if is_ours(error):
            raise
        raise PluginError(f"{what} raised {told(error)}") from error


def _promised(plugin: object) -> Names | None:
    """Return what a module says that it brings, for it may be a stranger's that says anything."""
    said = getattr(plugin, "VBACKUP_BRINGS", None)
    if said is None:
        return None
    known = {*(role.name for role in ROLES), "commands"}
    try:
        names = {role: [names] if isinstance(names, str) else sorted(names) for role, names in said.items() if names}
    except Exception:  # noqa: BLE001 - whatever it is, it is no mapping of lists
        names = {"": []}
    if not names.keys() <= known or not all(isinstance(each, str) for part in names.values() for each in part):
        raise PluginError(
            f"its VBACKUP_BRINGS must be lists of names by role ({', '.join(sorted(known))}), not {told_value(said)}"
        )
    return names


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    known = [hook for hook in vars(Hooks) if hook.startswith("vbackup_")]
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(_explain(manager, known, error)) from None
    marked = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    unmarked = [a for a in dir(plugin) if a.startswith("vbackup_") and a not in marked and callable(getattr(plugin, a))]
    if unmarked:
        raise PluginError(f"{', '.join(unmarked)} is not marked with vbackup.api.hookimpl")
    if not marked:
        raise PluginError("it implements no hook", hint="Mark its functions with vbackup.api.hookimpl.")


def _explain(manager: pluggy.PluginManager, known: Iterable[str], error: pluggy.PluginValidationError) -> str:
    for hook in vars(manager.hook):
        if hook.startswith("vbackup_") and hook not in known:
            near = difflib.get_close_matches(hook, known, n=1)
            return f"there is no hook {hook}" + (f"; did you mean {near[0]}?" if near else "")
    return " ".join(str(error).split())


def _collect(hooks: pluggy.HookRelay, role: Role) -> dict[str, type]:
    classes: dict[str, type] = {}

    def register(cls: Any, /) -> None:
        checked = role.check(cls)
        name: str = checked.name  # type: ignore[attr-defined]  # checked above
        if name in classes:
            raise PluginError(f"it registers two {role.name} named {name!r}")
        classes[name] = checked

    call(hooks, role.hook, register)
    return classes


def _trace(manager: pluggy.PluginManager, plugin: str, write: Callable[[str], None]) -> None:
    def before(hook_name: str, hook_impls: object, kwargs: Mapping[str, Any]) -> None:
        # Types only: values may hold what must not be shown.
        if hook_impls:
            arguments = ", ".join(f"{key}: {type(value).__name__}" for key, value in kwargs.items())
            write(f"hook {plugin}: {hook_name}({arguments})")

    def after(outcome: pluggy.Result[Any], hook_name: str, hook_impls: object, kwargs: object) -> None:  # noqa: ARG001
        if outcome.exception is not None:
            write(f"hook {plugin}: {hook_name} raised {type(outcome.exception).__name__}")

    manager.add_hookcall_monitoring(before, after)
