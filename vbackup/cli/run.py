"""``vbackup run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import copy, output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.jobs.run import MachineResult, RunReport


@click.command("run")
@click.argument("names", nargs=-1, metavar="[JOB|MACHINE ...]")
@json_option
@click.pass_obj
def command(state: State, names: tuple[str, ...]) -> int:
    """Back up the machines of JOBs, or only some of them; all jobs without any.

    A MACHINE is a name with * and ?, hypervisor:name, hypervisor:/folder/name, hypervisor:label=value or @group.
    """
    from vbackup.cli.progress import for_run
    from vbackup.jobs.run import run

    registry = state.registry()
    with state.site(registry) as site, for_run(as_json=state.json) as progress:
        registry.register(progress, "command-line")
        report = run(site, names)
    if state.json:
        output.document(_as_json(report), indent=None)
    else:
        _print(report)
    for result in report.results:
        if result.error is not None:
            output.error(f"{_name(result)}: {result.error.message}", result.error.hint)
    for _, copies in report.copies:
        copy.complain(copies)
    return 1 if report.failed else 3 if report.warnings else 0


def _name(result: MachineResult) -> str:
    return f"{result.task.hypervisor}:{result.task.machine}"


def _print(report: RunReport) -> None:
    columns = ("MACHINE", "READ", "CHANGED", "STORED", "RATIO", "TIME", "WARNINGS")
    output.table(columns, [_row(result) for result in report.results], numbers=frozenset(columns[1:]))
    for result in report.results:
        for warning in result.warnings:
            output.warning(f"{_name(result)}: {warning}")
    for job, copies in report.copies:
        output.write(f"{job} to {copy.totals(copies)}")
    for phrase in report.swept:
        output.complain(f"vbackup: left by an earlier run: {phrase}")


def _row(result: MachineResult) -> tuple[str, ...]:
    point = result.point
    amounts = (point.read, point.changed, point.stored) if point else (0, 0, 0)
    ratio = f"{amounts[0] / amounts[2]:.1f}" if amounts[2] else "-"
    outcome = "FAILED" if result.error else str(len(result.warnings))
    return (_name(result), *map(output.size, amounts), ratio, output.duration(result.seconds), outcome)


def _as_json(report: RunReport) -> dict[str, Any]:
    return {
        "event": "report",
        "failed": report.failed,
        "warnings": report.warnings,
        "swept": list(report.swept),
        "machines": [_result_as_json(result) for result in report.results],
        "copies": [{"job": job, **copy.as_json(copies)} for job, copies in report.copies],
    }


def _result_as_json(result: MachineResult) -> dict[str, Any]:
    error, point = result.error, result.point
    return {
        "job": result.task.job,
        "hypervisor": result.task.hypervisor,
        "machine": result.task.machine,
        "target": result.target,
        "point": point.id if point else None,
        "error": {"kind": error.kind, "message": error.message, "hint": error.hint} if error else None,
        "seconds": round(result.seconds, 3),
        "read": point.read if point else 0,
        "changed": point.changed if point else 0,
        "stored": point.stored if point else 0,
        "warnings": list(result.warnings),
    }
