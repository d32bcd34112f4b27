"""``vbackup check``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.jobs.check import CheckResult

_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%?", re.ASCII)
_ALL = "--read-data"


class _Command(click.Command):
    """``--read-data`` has its value after an equals sign, if any: what follows it otherwise is a target."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{_ALL}=100%" if arg == _ALL else arg for arg in args])


def _percent(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = _PERCENT.fullmatch(value)
    if found is None or not 0 < float(found[1]) <= 100:
        raise click.BadParameter(f"{value!r} is no part, as in 10%.", context, parameter)
    return float(found[1])


def _span(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    from vbackup.config.quantities import seconds

    try:
        return None if value is None else timedelta(seconds=seconds(value))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time, as in 12h, 30d or 4w.", context, parameter) from None


@click.command("check", cls=_Command)
@click.argument("targets", nargs=-1, metavar="[TARGET ...]")
@click.option(_ALL, "percent", metavar="[=N%]", callback=_percent, help="Read all data, or what was unread longest.")
@click.option("--since", metavar="TIME", callback=_span, help="Read the data that was not read in that time (30d).")
@click.option("--repair", is_flag=True, help="Set right what is wrong, from all copies that there are.")
@json_option
@click.pass_obj
def command(
    state: State, targets: tuple[str, ...], percent: float | None, since: timedelta | None, *, repair: bool
) -> int:
    """Check that all that TARGETs (all of them without any) hold is there and as it was stored."""
    with state.site() as site:
        from vbackup.api import CheckOrder
        from vbackup.cli.progress import Bars
        from vbackup.jobs.check import check

        order = CheckOrder(
            read_data=percent is not None or since is not None,
            percent=100.0 if percent is None else percent,
            since=since,
            repair=repair,
        )
        with Bars() as bars:
            results = check(site, targets, order, bars.checked)
    if state.json:
        output.document({"targets": [_as_json(result) for result in results]})
    for result in results:
        if not state.json:
            _print(result)
        _complain(result)
    return 1 if any(result.failed for result in results) else 3 if any(result.warnings for result in results) else 0


def _print(result: CheckResult) -> None:
    report = result.report
    for done in report.repaired:
        output.write(f"{result.target}: repaired: {done}")
    for note in report.notes:
        output.write(f"{result.target}: {note}")
    if result.error is None:
        state = "not whole" if result.failed else "whole"
        read = f", {output.size(report.read)} read" if report.read else ""
        output.write(
            f"{result.target}: {state}: {report.objects} objects checked, {output.size(report.stored)} stored{read}"
        )


def _complain(result: CheckResult) -> None:
    for wrong in result.report.wrong:
        output.error(f"{result.target}: {wrong}")
    for damage in result.report.damage:
        where = f"{damage.machine} {damage.disk} at {damage.offset}+{damage.length}: " if damage.disk else ""
        output.error(f"{result.target}: restore point {damage.point[:8]} is damaged: {where}{damage.reason}")
    for unasked in result.unasked:
        output.warning(unasked)
    if result.error is not None:
        output.error(f"{result.target} could not be checked: {result.error.message}", result.error.hint)


def _as_json(result: CheckResult) -> dict[str, Any]:
    from vbackup.cli.points import damage_as_json

    report, error = result.report, result.error
    return {
        "target": result.target,
        "wrong": list(report.wrong),
        "damage": [damage_as_json(damage) for damage in report.damage],
        "repaired": list(report.repaired),
        "notes": list(report.notes),
        "unasked": list(result.unasked),
        "objects": report.objects,
        "stored": report.stored,
        "read": report.read,
        "error": {"kind": error.kind, "message": error.message, "hint": error.hint} if error else None,
    }
