"""``vbackup unprotect``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("unprotect")
@click.argument("points", nargs=-1, required=True, metavar="POINT ...")
@json_option
@click.pass_obj
def command(state: State, points: tuple[str, ...]) -> None:
    """Leave restore POINTs, and their copies, to the rules of their jobs again."""
    with state.site() as site:
        from vbackup.cli.points import as_json
        from vbackup.jobs.protect import unprotect_points

        done = [as_json(found) for found in unprotect_points(site, points)]
    if state.json:
        output.document(done)
        return
    for point in done:
        output.write(
            f"not protected any more {point['id']} in {point['target']}: {point['machine']} of {point['time']}"
        )
