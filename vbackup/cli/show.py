"""``vbackup show``."""

from __future__ import annotations

from typing import Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option


@click.command("show")
@click.argument("point")
@json_option
@click.pass_obj
def command(state: State, point: str) -> int:
    """Show a restore POINT: machine@latest, machine@TIME or the beginning of its id."""
    with state.site() as site:
        from vbackup.api import WrongKey
        from vbackup.cli import points
        from vbackup.jobs.points import captured_with, describe, find_point
        from vbackup.jobs.protect import protections

        found = find_point(site, point)
        reason = protections(site, [found])[found.target].get(found.point.id)
        try:
            machine = describe(site, found)
        except WrongKey as error:  # a key that only writes sees all but what the machine was like
            output.warning(f"the machine's description is left out: {error.message}")
            machine = None
        shown = points.details(found, machine, reason, captured_with(site, found.point))
    if state.json:
        output.document(shown)
    else:
        _print(shown)
    return 0 if machine else 3


def _print(shown: dict[str, Any]) -> None:
    machine = shown["description"]
    output.write(f"restore point  {shown['id']}")
    output.write(f"machine        {shown['machine']} on {shown['hypervisor']} ({shown['hypervisor_type']})")
    output.write(f"target         {shown['target']}")
    output.write(f"time           {shown['time']}, in {output.duration(shown['seconds'])}")
    if shown["group"]:
        apart = "" if shown["together"] else ", captured apart from the others"
        output.write(f"group          {shown['group']}{apart}")
    for other in shown["captured_with"]:
        output.write(f"{'':15}with {other['machine']} of {other['time']} ({other['id'][:8]})")
    output.write(f"file systems   {'frozen' if shown['quiesced'] else 'not frozen (crash-consistent)'}")
    if machine:
        output.write(f"hardware       {machine['cpus']} CPUs, {output.size(machine['memory'])}, {machine['firmware']}")
    if shown["protected"]:
        output.write(f"protected      {shown['protected_reason'] or 'yes'}")
    if shown["files"]:
        output.write(f"files          {', '.join(shown['files'])}")
    if shown["memory"]:
        output.write(f"memory         {output.size(shown['memory']['size'])}: {_amounts(shown['memory'])}")
    for disk in shown["disks"]:
        output.write(f"disk {disk['key']:<9} {output.size(disk['size'])} {disk['format']}: {_amounts(disk)}")
        output.write(f"{'':15}{'read in full: ' + disk['full_reason'] if disk['full_reason'] else 'read what changed'}")
    kept = {disk["key"] for disk in shown["disks"]}
    for key in (disk["key"] for disk in machine["disks"] if disk["key"] not in kept) if machine else ():
        output.write(f"disk {key:<9} not in this restore point")
    for warning in shown["warnings"]:
        output.write(f"warning        {warning}")


def _amounts(disk: dict[str, Any]) -> str:
    return ", ".join(f"{output.size(disk[name])} {name}" for name in ("read", "changed", "stored"))
