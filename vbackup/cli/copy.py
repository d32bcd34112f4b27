"""``vbackup copy``."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.api import JobFinished, JobProgress
    from vbackup.cli.progress import Bars, Lines
    from vbackup.jobs.copy import CopyReport
    from vbackup.jobs.copying import PointCopy


@click.command("copy")
@click.argument("names", nargs=-1, required=True, metavar="POINT|JOB ...")
@click.option("--to", required=True, metavar="TARGET", help="Where to.")
@json_option
@click.pass_obj
def command(state: State, names: tuple[str, ...], to: str) -> int:
    """Copy restore POINTs, or all that `keep` keeps of JOBs, into another target: what is there is skipped.

    A copy is the same restore point, with codecs and keys of its own. Stopped at any time, it goes on where it was.
    """
    with state.site() as site:
        from vbackup.cli.progress import Bars, Lines
        from vbackup.jobs.copy import copy

        with Bars() if sys.stderr.isatty() else nullcontext(Lines()) as display:
            report = copy(site, names, to, partial(_show, display))
    if state.json:
        output.document(as_json(report))
    else:
        if report.results:
            columns = ("ID", "MACHINE", "TIME", "FROM", "READ", "STORED", "OUTCOME")
            numbers = frozenset({"READ", "STORED"})
            output.table(columns, [_row(result) for result in report.results], numbers=numbers)
        output.write(totals(report))
    complain(report)
    return 1 if report.failed else 3 if report.notes else 0


def _show(display: Bars | Lines, event: JobProgress | JobFinished) -> None:
    """Show a copy as a run shows a machine."""
    from vbackup.api import JobFinished
    from vbackup.cli.progress import Bars

    if isinstance(event, JobFinished):
        display.vbackup_job_finished(event)
    elif isinstance(display, Bars):
        display.vbackup_job_progress(event)


def totals(report: CopyReport) -> str:
    """Return one line of what came of it."""
    counts = f"{len(report.copied)} restore points copied, {report.skipped} there already, {len(report.errors)} failed"
    return f"{report.target}: {counts}: {output.size(report.read)} read, {output.size(report.stored)} stored"


def complain(report: CopyReport) -> None:
    """Print what went wrong, and what there is to know."""
    for note in report.notes:
        output.warning(f"{report.target}: {note}")
    for result, error in report.errors:
        point = f"{result.point.machine}@{result.point.id[:8]}: " if result else ""
        output.error(f"{report.target}: {point}{error.message}", error.hint)


def as_json(report: CopyReport) -> dict[str, Any]:
    """Return what ``copy --json`` has; sizes in bytes."""
    return {
        "target": report.target,
        "copied": len(report.copied),
        "skipped": report.skipped,
        "failed": report.failed,
        "read": report.read,
        "stored": report.stored,
        "points": [_result_as_json(result) for result in report.results],
        "notes": list(report.notes),
        "error": _error_as_json(report.error),
    }


def _result_as_json(result: PointCopy) -> dict[str, Any]:
    point = result.point
    return {
        "id": point.id,
        "machine": point.machine,
        "hypervisor": point.hypervisor,
        "time": output.moment(point.time),
        "from": result.source,
        "read": result.read,
        "stored": result.stored,
        "error": _error_as_json(result.error),
    }


def _error_as_json(error: Any) -> dict[str, str] | None:
    return {"kind": error.kind, "message": error.message, "hint": error.hint} if error else None


def _row(result: PointCopy) -> tuple[str, ...]:
    point = result.point
    return (
        point.id[:8],
        f"{point.hypervisor}:{point.machine}",
        output.moment(point.time.replace(microsecond=0)),
        result.source,
        output.size(result.read),
        output.size(result.stored),
        "FAILED" if result.error else "copied",
    )
