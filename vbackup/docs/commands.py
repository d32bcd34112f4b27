"""The reference of the command line, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from vbackup.cli.main import cli
from vbackup.docs.markdown import GENERATED, escaped, in_cell, table
from vbackup.registry import Registry

INTRODUCTION = """# Commands

Every command, made from the code; `--help` after a command prints the same. `--json`, before or after any command,
prints one JSON document on stdout ([for programs](../../../README.md#for-programs)), `--help` explains it.

A POINT is `machine@latest`, `machine@2026-11-22T14:32` or the beginning of an id. `hypervisor:machine@...` says which
one where two have machines of one name, and `@group@...` means all machines of a group.

| exit code | meaning |
| --- | --- |
| 0 | all done |
| 1 | something failed; the message says what, and what to do |
| 2 | the arguments or the configuration are wrong; nothing was started |
| 3 | all done, with warnings |
| 128 + n | stopped by signal n; nothing is half-done |

Any command may end with 1 or 2; where 3, or 1, has a meaning of its own, it is said.
"""
MEANINGS = {
    "run": "1: a machine or a copy failed, and the others are done. 3: done, with warnings, which `show` has, too.",
    "list": "3: a restore point cannot be read; the others are listed.",
    "show": "3: the key may not read, so the machine's description is left out.",
    "restore": "3: done, but something is not as it was; with `--dry-run`: something would not be. It is told.",
    "verify": "1: something is damaged, and named.",
    "check": "1: a target is not whole, or could not be checked. 3: something could not be asked, and is named.",
    "copy": "1: a point could not be copied, and the others are. 3: there is something to know, and it is told.",
    "prune": "1: a target could not be pruned. 3: a point cannot be read, or space not be freed; it is told why.",
    "key list": "3: a key slot is damaged, forged or was removed before.",
    "key rotate": "3: keys were dropped, and are named: add them again.",
    "transport test": "1: it cannot do what is needed. 3: something could not be removed.",
    "doctor": "1: something is missing. 3: something could be better.",
}
"""What exit codes mean where it is not plain; by command."""
COMMON = {"--json", "--help"}
ENVIRONMENT = (
    ("VBACKUP_CONFIG", "the configuration file, when there is no `-c`"),
    ("VBACKUP_STATE_DIR", "where state is kept, instead of `/var/lib/vbackup` (users: `~/.local/state/vbackup`)"),
    ("VBACKUP_CACHE_DIR", "where the cache is, instead of `/var/cache/vbackup` (users: `~/.cache/vbackup`)"),
    ("VBACKUP_DISABLED_PLUGINS", "plugins that are not loaded: names with commas"),
    ("VBACKUP_TRACE_HOOKS", "`1` prints each call of a plugin's hook to stderr"),
    ("VBACKUP_DEBUG", "`1` prints where an error comes from, as a traceback"),
)


def page(registry: Registry) -> str:
    """Return the page."""
    lines = [GENERATED, "", *INTRODUCTION.splitlines(), "", "## Before any command", ""]
    lines += [*_options(cli, click.Context(cli, info_name="vbackup"))]
    for name in cli.list_commands(click.Context(cli)):
        lines += _described(f"vbackup {name}", _own(name))
    for name, command in sorted(registry.commands.items()):
        lines += [*_described(f"vbackup {name}", command), f"It comes with a plugin: {_plugin(registry, name)}.", ""]
    lines += [
        "## Environment",
        "",
        *table(("variable", "meaning"), [(f"`{name}`", what) for name, what in ENVIRONMENT]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def every(registry: Registry) -> Iterator[tuple[str, click.Command]]:
    """Yield all commands that do something, with their names (``key add``)."""
    for name in cli.list_commands(click.Context(cli)):
        yield from _leaves(name, _own(name))
    for name, command in registry.commands.items():
        yield from _leaves(name, command)


def _leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for inner, found in command.commands.items():
            yield from _leaves(f"{name} {inner}", found)
    else:
        yield name, command


def _own(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    if command is None:
        raise KeyError(name)
    return command


def _plugin(registry: Registry, command: str) -> str:
    return next(plugin.name for plugin in registry.plugins if command in plugin.roles.get("commands", ()))


def _described(name: str, command: click.Command, level: str = "##") -> list[str]:
    context = click.Context(command, info_name=name)
    lines = [f"{level} {name}", ""]
    if not isinstance(command, click.Group):
        lines += ["```", " ".join((name, *command.collect_usage_pieces(context))), "```", ""]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines += [escaped(paragraph), ""]
    lines += _options(command, context)
    meaning = MEANINGS.get(name.removeprefix("vbackup "))
    lines += [f"Exit code {meaning}", ""] if meaning else []
    if isinstance(command, click.Group):
        for inner, found in command.commands.items():
            lines += _described(f"{name} {inner}", found, "###")
    return lines


def _options(command: click.Command, context: click.Context) -> list[str]:
    found = (
        each for each in command.get_params(context) if isinstance(each, click.Option) and not COMMON & {*each.opts}
    )
    records = [record for option in found if (record := option.get_help_record(context))]
    if not records:
        return []
    return table(("option", "meaning"), [(in_cell(option), escaped(what)) for option, what in records])
