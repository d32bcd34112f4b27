"""``vbackup verify``."""

from __future__ import annotations

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("verify")
@click.argument("points", nargs=-1, metavar="[POINT ...]")
@json_option
@click.pass_obj
def command(state: State, points: tuple[str, ...]) -> int:
    """Read all that restore POINTs (all of them without any) need, and check every byte."""
    with state.site() as site:
        from vbackup.cli.points import damage_as_json
        from vbackup.cli.progress import Bars
        from vbackup.jobs.points import verify_points

        with Bars() as bars:
            report = verify_points(site, points, bars.checked)
    if state.json:
        output.document(
            {
                "points": [found.point.id for found in report.points],
                "bytes_checked": report.bytes_checked,
                "damage": [damage_as_json(damage) for damage in report.damage],
            }
        )
    else:
        output.write(f"{len(report.points)} restore points, {output.size(report.bytes_checked)} checked")
    for damage in report.damage:
        where = f"{damage.machine} {damage.disk} at {damage.offset}+{damage.length}: " if damage.disk else ""
        output.error(f"restore point {damage.point[:8]} is damaged: {where}{damage.reason}")
    return 1 if report.damage else 0
