"""``vbackup prune``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.api import Point, PruneReport
    from vbackup.jobs.prune import PruneOutcome, TargetResult
    from vbackup.jobs.retention import Decision


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    from vbackup.config.quantities import size

    try:
        return None if value is None else size(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a size, as in 500M or 1.5GiB.", context, parameter) from None


@click.command("prune")
@click.argument("jobs", nargs=-1, metavar="[JOB ...]")
@click.option("--dry-run", is_flag=True, help="Delete nothing; say of every point which rule keeps it or why it goes.")
@click.option("--rewrite", metavar="SIZE", callback=_size, help="Write at most that much to get at mixed garbage.")
@click.option("--end-silent", is_flag=True, help="Take runs that show no life for dead at once, not after an hour.")
@json_option
@click.pass_obj
def command(state: State, jobs: tuple[str, ...], rewrite: int | None, *, dry_run: bool, end_silent: bool) -> int:
    """Delete the restore points that no `keep` rule of JOBs (all without any) keeps, and free space."""
    with state.site() as site:
        from vbackup.api import PruneOrder
        from vbackup.jobs.prune import prune

        outcome = prune(site, jobs, PruneOrder(dry_run=dry_run, rewrite=rewrite, end_silent=end_silent))
    if state.json:
        output.document(_as_json(outcome))
    else:
        _print(outcome)
    for result in outcome.results:
        for damage in result.damaged:
            output.warning(f"restore point {damage.point} in {result.target} cannot be read: {damage.reason}")
        for note in result.space.notes if result.space else ():
            output.warning(f"{result.target}: {note}")
        if result.error is not None:
            output.error(f"{result.target}: {result.error.message}", result.error.hint)
    return 1 if outcome.failed else 3 if outcome.warnings else 0


def _print(outcome: PruneOutcome) -> None:
    for result in outcome.results:
        if outcome.dry_run and result.decisions:
            columns = ("ID", "MACHINE", "TIME", "TARGET", "JOB", "FATE", "WHY")
            output.table(columns, [_row(result, decision) for decision in result.decisions])
        elif not outcome.dry_run:
            for decision in result.decisions:
                if not decision.kept:
                    output.write(f"deleted {_name(decision.point)}: {'; '.join(decision.reasons)}")
    for result in outcome.results:
        if result.space is not None:
            output.write(_totals(result.target, len(result.gone), result.space, dry_run=outcome.dry_run))


def _totals(target: str, gone: int, space: PruneReport, *, dry_run: bool) -> str:
    amounts = {"freed": space.freed, "rewritten": space.rewritten, "waiting": space.waiting, "stored": space.stored}
    shown = ", ".join(f"{output.size(amount)} {name}" for name, amount in amounts.items())
    return f"{target}: {gone} restore points {'would be ' if dry_run else ''}deleted: {shown}"


def _row(result: TargetResult, decision: Decision) -> tuple[str, ...]:
    point = decision.point
    return (
        point.id[:8],
        f"{point.hypervisor}:{point.machine}",
        output.moment(point.time.replace(microsecond=0)),
        result.target,
        point.job,
        "stays" if decision.kept else "goes",
        "; ".join(decision.reasons),
    )


def _name(point: Point) -> str:
    return f"{point.id}: {point.hypervisor}:{point.machine} of {output.moment(point.time)}"


def _as_json(outcome: PruneOutcome) -> dict[str, Any]:
    return {"dry_run": outcome.dry_run, "targets": [_result_as_json(result) for result in outcome.results]}


def _result_as_json(result: TargetResult) -> dict[str, Any]:
    from vbackup.cli.points import damage_as_json

    space, error = result.space, result.error
    return {
        "target": result.target,
        "points": [_decision_as_json(decision) for decision in result.decisions],
        "damaged": [damage_as_json(damage) for damage in result.damaged],
        "freed": space.freed if space else 0,
        "rewritten": space.rewritten if space else 0,
        "waiting": space.waiting if space else 0,
        "stored": space.stored if space else None,
        "notes": list(space.notes) if space else [],
        "error": {"kind": error.kind, "message": error.message, "hint": error.hint} if error else None,
    }


def _decision_as_json(decision: Decision) -> dict[str, Any]:
    point = decision.point
    return {
        "id": point.id,
        "machine": point.machine,
        "hypervisor": point.hypervisor,
        "job": point.job,
        "time": output.moment(point.time),
        "kept": decision.kept,
        "reasons": list(decision.reasons),
    }
