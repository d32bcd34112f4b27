"""``vbackup transport``: the places where objects are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.jobs.trial import Outcome, Result

_DEFAULT = 256
_LEAST = 32


@click.group("transport")
@json_option
def command() -> None:
    """Try out the places where objects are kept."""


@command.command("test")
@click.argument("name")
@click.option(
    "--size",
    type=click.IntRange(_LEAST, 1 << 20),
    default=_DEFAULT,
    show_default=True,
    metavar="MIB",
    help="How much is written, in large objects, to measure by.",
)
@json_option
@click.pass_obj
def test(state: State, name: str, size: int) -> int:
    """Try what the transport NAME can do, and how fast it is.

    It may hold repositories: all objects are below `trial/`, and are removed in the end. A place that is not there is
    not made.
    """
    with state.site() as site:
        from vbackup.jobs.trial import amount, try_transport

        site.transport(name)  # an unknown name is an error before anything is announced
        most = output.size(amount(size))
        output.complain(f"{name}: at most {most} are written below trial/ and read back, then removed")
        result = try_transport(site, name, size, _hush if state.json else _tell)
    if state.json:
        output.document(_as_json(name, result))
    elif result.speeds:
        output.write("")
        output.table(("SPEED", "", ""), [(each.name, _figure(each.value), each.unit) for each in result.speeds])
    return _end(name, result)


def _tell(outcome: Outcome) -> None:
    output.write(f"{outcome.verdict:<8} {outcome.name}: {outcome.answer.detail}")
    if outcome.answer.hint:
        output.write(f"{'':8} -> {outcome.answer.hint}")


def _hush(outcome: Outcome) -> None:
    """Say nothing: one document says all in the end."""


def _figure(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _end(name: str, result: Result) -> int:
    if not result.whole:
        output.warning(f"{name}: nothing else was tried")
    for left in result.left:
        output.warning(f"{name}: not removed: {left}")
    return 1 if result.failed else 3 if result.left else 0


def _as_json(name: str, result: Result) -> dict[str, Any]:
    return {
        "transport": name,
        "trials": [
            {
                "name": outcome.name,
                "verdict": str(outcome.verdict),
                "detail": outcome.answer.detail,
                "hint": outcome.answer.hint,
            }
            for outcome in result.outcomes
        ],
        "whole": result.whole,
        "speeds": [each._asdict() for each in result.speeds],
        "left": list(result.left),
    }
