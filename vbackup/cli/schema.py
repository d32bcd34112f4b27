"""``vbackup schema``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("schema")
@json_option
@click.pass_obj
def command(state: State) -> None:
    """Print the JSON Schema of the configuration, options of all installed plugins included."""
    from vbackup.config import schema

    output.document(schema(state.registry()))
