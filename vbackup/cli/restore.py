"""``vbackup restore``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.api import Point, RestoreDisk
    from vbackup.jobs.restore import Rehearsal, RestoreOptions, RestoreReport
    from vbackup.jobs.site import Site


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
@click.option("--to", metavar="HYPERVISOR", help="Another hypervisor than it came from, of whatever type.")
@click.option("--as", "name", metavar="NAME", help="Make a new machine of that name; the old one is not touched.")
@click.option("--disk", "disks", metavar="KEY=PATH", multiple=True, callback=_disks, help="Only this disk, to a file.")
@click.option("--format", "format_", type=click.Choice(["raw", "qcow2"]), help="The format of the disks.")
@click.option("--overwrite", is_flag=True, help="Replace what is there: the machine (if off), file or device.")
@click.option("--start", is_flag=True, help="Start the machine.")
@click.option("--no-memory", is_flag=True, help="Start afresh, although the point has the machine's memory.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done, and what could not be put back as it was.")
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
    no_memory: bool,
    dry_run: bool,
) -> int:
    """Put a machine back as it was at POINT (machine@latest, machine@TIME or the beginning of an id).

    @group@latest or @group@TIME restores the machines of a group, in their order. With --start each is started, and the
    next one is restored when it is ready. In --as a * stands for the machine's name.
    """
    with state.site() as site:
        from vbackup.jobs.restore import RestoreOptions

        options = RestoreOptions(
            to=to, name=name, disks=disks, format=format_, overwrite=overwrite, start=start, memory=not no_memory
        )
        work = _group if point.startswith("@") else _one
        return work(state, site, point, options, dry_run=dry_run)


class Notes:
    """What cannot be put back as it was: told at once, and only once."""

    def __init__(self) -> None:
        self._told: list[tuple[str, str]] = []

    def announce(self, point: Point, notes: Sequence[str]) -> None:
        """Print those of a point that were not printed yet."""
        for note in notes:
            if (point.id, note) not in self._told:
                self._told.append((point.id, note))
                output.warning(f"{point.machine}: {note}")


def _one(state: State, site: Site, point: str, options: RestoreOptions, *, dry_run: bool) -> int:
    from vbackup.cli.progress import Bars
    from vbackup.jobs.restore import order

    notes = Notes()
    wanted = order(site, point, options)
    done: RestoreReport | Rehearsal
    if dry_run:
        done = wanted.rehearse(site, notes.announce)
    else:
        with Bars() as bars:
            done = wanted.carry_out(site, bars.disk, notes.announce)
    if state.json:
        output.document(as_json(done))
    else:
        output.write(phrase(done))
    notes.announce(done.point, done.notes)
    return 3 if done.notes else 0


def _group(state: State, site: Site, text: str, options: RestoreOptions, *, dry_run: bool) -> int:
    from vbackup.cli.progress import Bars
    from vbackup.jobs.groups import GroupRestore, Watch

    notes = Notes()
    wanted = GroupRestore(site, text, options)
    for note in wanted.notes:
        output.warning(note)
    done: Sequence[RestoreReport | Rehearsal]
    if dry_run:
        done = wanted.rehearse(notes.announce)
    else:
        with Bars() as bars:
            done = wanted.carry_out(Watch(bars.disk, notes.announce, _say_waiting))
    if state.json:
        machines = [as_json(each) for each in done]
        output.document({"group": wanted.group, "machines": machines, "notes": list(wanted.notes)})
    for each in done:
        if not state.json:
            output.write(phrase(each))
        notes.announce(each.point, each.notes)
    return 3 if wanted.notes or any(each.notes for each in done) else 0


def _say_waiting(machine: str) -> None:
    output.complain(f"waiting until {machine} is ready")


def phrase(done: RestoreReport | Rehearsal) -> str:
    """Return one line of what was, or would be, done."""
    from vbackup.jobs.restore import RestoreReport

    if isinstance(done, RestoreReport):
        return f"{done.result} ({output.size(done.bytes_written)} written)"
    point = done.point
    what = ", ".join(f"{disk.key} of {output.size(disk.size)}" for disk in done.disks)
    where = f"as {done.to}:{done.name}" if not done.files else f"to {', '.join(map(str, done.files.values()))}"
    return f"would restore {point.hypervisor}:{point.machine} of {output.moment(point.time)} {where}: {what}"


def as_json(done: RestoreReport | Rehearsal) -> dict[str, Any]:
    """Return what ``restore --json`` has of a machine; sizes in bytes."""
    from vbackup.jobs.restore import RestoreReport

    who = {"point": done.point.id, "machine": done.point.machine}
    if isinstance(done, RestoreReport):
        return {**who, "result": done.result, "bytes_written": done.bytes_written, "notes": list(done.notes)}
    files = {key: str(path) for key, path in done.files.items()}
    where = {"hypervisor": done.to or None, "name": None if files else done.name, "files": files}
    return {**who, **where, "disks": [_disk_as_json(disk) for disk in done.disks], "notes": list(done.notes)}


def _disk_as_json(disk: RestoreDisk) -> dict[str, Any]:
    return {"key": disk.key, "size": disk.size, "is_memory": disk.is_memory}
