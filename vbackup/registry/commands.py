"""Collecting the commands that a plugin brings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

from vbackup.api import PluginError
from vbackup.commands import COMMANDS
from vbackup.guards.blame import is_ours, told

if TYPE_CHECKING:
    import click

HOOK = "vbackup_register_commands"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


def commands(hooks: pluggy.HookRelay) -> dict[str, click.Command]:
    """Return the commands that a plugin registers, by name. Raises: `PluginError` with what is wrong."""
    found: dict[str, click.Command] = {}

    def register(command: Any, /) -> None:
        import click

        if not isinstance(command, click.Command):
            raise PluginError(f"{HOOK} must register commands of click, not {type(command).__name__}")
        name = command.name or ""
        if not _NAME.fullmatch(name):
            raise PluginError(f"a command has no usable name: {name!r} (lower-case letters, digits and -)")
        if name in COMMANDS:
            raise PluginError(f"its command {name!r} is one of vbackup's own")
        if name in found:
            raise PluginError(f"it registers two commands named {name!r}")
        found[name] = command

    call(hooks, HOOK, register)
    return found


def call(hooks: pluggy.HookRelay, hook: str, register: Callable[[Any], None]) -> None:
    """Call a registering hook of one plugin. Raises: `PluginError` for whatever comes out of it."""
    try:
        getattr(hooks, hook)(register=register)
    except PluginError:
        raise
    except BaseException as error:  # a stranger's code may raise anything; it must not stop the others
        if is_ours(error):
            raise
        raise PluginError(f"{hook} raised {told(error)}") from error
