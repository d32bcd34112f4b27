"""Says hello."""

from __future__ import annotations

import json

import click

from vbackup.api import CommandContext


@click.group("greet")
def command() -> None:
    """Be polite."""


@command.command()
@click.option("--greeting", default="hello", show_default=True, metavar="WORD", help="What is said.")
@click.pass_obj
def hello(context: CommandContext, greeting: str) -> int:
    """Say GREETING: on a line, or with --json as a document."""
    context.write(json.dumps({"greeting": greeting}) if context.json else greeting)
    return 0
