"""``vbackup plugins``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("plugins")
@json_option
@click.pass_obj
def command(state: State) -> None:
    """List the plugins: what they bring, and what is wrong with those that are left out."""
    plugins = state.registry().plugins
    if state.json:
        keys = ("name", "origin", "version", "builtin", "status", "error")
        output.document(
            [
                {
                    **{key: getattr(plugin, key) for key in keys},
                    "roles": {role: list(names) for role, names in plugin.roles.items()},
                }
                for plugin in plugins
            ]
        )
        return
    rows = []
    for plugin in plugins:
        brings = "; ".join(f"{role}: {', '.join(names)}" for role, names in plugin.roles.items())
        origin = "built-in" if plugin.builtin else f"{plugin.origin} {plugin.version}"
        rows.append((plugin.name, origin, plugin.status, plugin.error or brings))
    output.table(("NAME", "FROM", "STATUS", "BRINGS"), rows)
