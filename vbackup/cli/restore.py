"""``vbackup restore``."""

from __future__ import annotations

from pathlib import Path

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


def _disks(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    disks: dict[str, Path] = {}
    for value in values:
        key, equals, path = value.partition("=")
        if not (key and equals and path):
            raise click.BadParameter(f"{value!r} is not KEY=PATH, as in vda=/tmp/vda.raw.", context, parameter)
        if key in disks:
            raise click.BadParameter(f"{key!r} is there twice.", context, parameter)
        disks[key] = Path(path)
    return disks


@click.command("restore")
@click.argument("point")
@click.option("--to", metavar="HYPERVISOR", help="Another hypervisor than it came from.")
@click.option("--as", "name", metavar="NAME", help="Make a new machine of that name; the old one is not touched.")
@click.option("--disk", "disks", metavar="KEY=PATH", multiple=True, callback=_disks, help="Only this disk, to a file.")
@click.option("--format", "format_", type=click.Choice(["raw", "qcow2"]), help="The format of the disks.")
@click.option("--overwrite", is_flag=True, help="Replace what is there: the machine (if off), file or device.")
@click.option("--start", is_flag=True, help="Start the machine.")
@json_option
@click.pass_obj
def command(
    state: State,
    point: str,
    to: str | None,
    name: str | None,
    disks: dict[str, Path],
    format_: str | None,
    *,
    overwrite: bool,
    start: bool,
) -> int:
    """Put a machine back as it was at POINT (machine@latest, machine@TIME or the beginning of an id)."""
    with state.site() as site:
        from vbackup.cli.progress import Bars
        from vbackup.jobs.restore import RestoreOptions, restore

        options = RestoreOptions(to=to, name=name, disks=disks, format=format_, overwrite=overwrite, start=start)
        with Bars() as bars:
            report = restore(site, point, options, bars.disk)
    if state.json:
        output.document(
            {
                "point": report.point.id,
                "machine": report.point.machine,
                "result": report.result,
                "bytes_written": report.bytes_written,
                "notes": list(report.notes),
            }
        )
    else:
        output.write(f"{report.result} ({output.size(report.bytes_written)} written)")
    for note in report.notes:
        output.warning(note)
    return 3 if report.notes else 0
