"""``vbackup list``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("list")
@click.argument("machine", required=False)
@json_option
@click.pass_obj
def command(state: State, machine: str | None) -> int:
    """List restore points, oldest first, of MACHINE, of @group or of all."""
    with state.site() as site:
        from vbackup.cli import points
        from vbackup.jobs.points import survey
        from vbackup.jobs.protect import protections

        found, damaged = survey(site, machine)
        protected = protections(site, found)
    if state.json:
        shown = [points.as_json(each, protected=each.point.id in protected[each.target]) for each in found]
        output.document(shown)
    elif found:
        points.print_table(found, protected)
    else:
        output.complain("no restore points")
    for damage in damaged:
        output.warning(f"restore point {damage.point} cannot be read: {damage.reason}")
    return 3 if damaged else 0
