"""``vbackup delete``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("delete")
@click.argument("points", nargs=-1, required=True, metavar="POINT ...")
@json_option
@click.pass_obj
def command(state: State, points: tuple[str, ...]) -> None:
    """Delete restore POINTs. Nothing is asked; others are not affected."""
    with state.site() as site:
        from vbackup.cli.points import as_json
        from vbackup.jobs.points import delete_points

        deleted = [as_json(found) for found in delete_points(site, points)]
    if state.json:
        output.document(deleted)
        return
    for point in deleted:
        output.write(f"deleted {point['id']}: {point['hypervisor']}:{point['machine']} of {point['time']}")
