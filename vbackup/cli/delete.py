"""``vbackup delete``."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.jobs.delete import Deleted


@click.command("delete")
@click.argument("points", nargs=-1, required=True, metavar="POINT ...")
@click.option("--target", metavar="TARGET", help="Only there; copies in other targets stay.")
@json_option
@click.pass_obj
def command(state: State, points: tuple[str, ...], target: str | None) -> None:
    """Delete restore POINTs in all targets that have them. Nothing is asked; other points are not affected.

    Protected points stay. One that cannot be read, or was lost, is given up by its id as `list` shows it.
    """
    with state.site() as site:
        from vbackup.jobs.delete import delete_points

        deleted = delete_points(site, points, target)
    if state.json:
        output.document([_as_json(each) for each in deleted])
    else:
        _print(deleted)


def _as_json(deleted: Deleted) -> dict[str, Any]:
    from vbackup.cli.points import as_json
    from vbackup.jobs.points import Found

    if deleted.point is None:
        return {"id": deleted.id, "target": deleted.target}
    return as_json(Found(deleted.target, deleted.point))


def _print(deleted: list[Deleted]) -> None:
    targets: dict[str, list[str]] = defaultdict(list)
    for each in deleted:
        targets[each.id].append(each.target)
    for point_id, places in targets.items():
        point = next((each.point for each in deleted if each.id == point_id and each.point), None)
        what = f"{point.hypervisor}:{point.machine} of {output.moment(point.time)}" if point else "it could not be read"
        where = f" from {', '.join(places)}" if len(places) > 1 else ""
        output.write(f"deleted {point_id}{where}: {what}")
