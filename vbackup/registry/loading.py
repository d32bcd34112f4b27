"""Taking in one plugin: all that it brings is checked before any of it counts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from vbackup.api import API_VERSION, PluginError
from vbackup.api.hooks import Hooks
from vbackup.registry.commands import call, commands
from vbackup.registry.roles import ROLES, Role

if TYPE_CHECKING:
    import click


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plugin that was found good: a hook caller of its own, its classes by role and name, and its commands."""

    name: str
    hooks: pluggy.HookRelay
    classes: Mapping[str, Mapping[str, type]]
    commands: Mapping[str, click.Command]


def adopt(plugin: object, name: str, trace: Callable[[str], None] | None = None) -> Loaded:
    """Check ``plugin`` (a module or an object with hook implementations) and collect what it registers.

    Each plugin gets a manager of its own, so that what one raises never keeps another from being called.

    Raises: `PluginError` with what is wrong, not naming the plugin.
    """
    version = getattr(plugin, "VBACKUP_API_VERSION", API_VERSION)
    if version != API_VERSION:
        raise PluginError(f"it was made for API version {version}; this is {API_VERSION}")
    manager = pluggy.PluginManager("vbackup")
    manager.add_hookspecs(Hooks)
    if trace is not None:
        _trace(manager, name, trace)
    _register(manager, plugin, name)
    classes = {role.name: _collect(manager, role) for role in ROLES}
    return Loaded(name, manager.hook, classes, commands(manager.hook))


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


def _collect(manager: pluggy.PluginManager, role: Role) -> dict[str, type]:
    classes: dict[str, type] = {}

    def register(cls: Any, /) -> None:
        checked = role.check(cls)
        name: str = checked.name  # type: ignore[attr-defined]  # checked above
        if name in classes:
            raise PluginError(f"it registers two {role.name} named {name!r}")
        classes[name] = checked

    call(manager.hook, role.hook, register)
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
