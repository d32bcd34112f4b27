"""``vbackup protect``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("protect")
@click.argument("points", nargs=-1, required=True, metavar="POINT ...")
@click.option("--reason", default="", metavar="TEXT", help="Why, for those who wonder later.")
@json_option
@click.pass_obj
def command(state: State, points: tuple[str, ...], reason: str) -> None:
    """Keep restore POINTs, and their copies, whatever the rules of their jobs say."""
    with state.site() as site:
        from vbackup.cli.points import as_json
        from vbackup.jobs.protect import protect_points

        done = [as_json(found, protected=True) for found in protect_points(site, points, reason)]
    if state.json:
        output.document(done)
        return
    for point in done:
        output.write(f"protected {point['id']} in {point['target']}: {point['machine']} of {point['time']}")
