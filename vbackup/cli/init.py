"""``vbackup init``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("init")
@click.argument("target", required=False)
@click.option("--keys-of", metavar="OTHER", help="Share the keys of that target: copies go there undecoded.")
@click.option("--force", is_flag=True, help="Take a LUN that holds something else, which is lost.")
@json_option
@click.pass_obj
def command(state: State, target: str | None, keys_of: str | None, *, force: bool) -> None:
    """Prepare TARGET (all of them without it) for its first backup."""
    with state.site() as site:
        from vbackup.jobs.init import init

        done = init(site, target, keys_of, force=force)
    if state.json:
        output.document({"done": done})
        return
    for phrase in done:
        output.write(phrase)
