"""The entry point: finds the command, and turns what goes wrong into messages and exit codes.

Importing this must stay cheap: commands import what they need when they run.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from vbackup import __version__
from vbackup.cli import output, stdout
from vbackup.cli.leftover import end_in_time
from vbackup.cli.signals import Stopped, stop_signals
from vbackup.cli.state import State, json_option
from vbackup.commands import COMMANDS

OK, FAILED, USAGE, WARNINGS = 0, 1, 2, 3

_TURN = 0.001
"""Seconds that a thread may keep Python's lock: those that compress give it back far sooner, and wait for it."""


class Commands(click.Group):
    """Finds each command in the module of its name when it is asked for, and any other among the plugins'.

    Plugins are only loaded for a name that is not ours: the help, and each of our commands, begins without them.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Our own names, in the order of a user's day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or return None for a name that is not one."""
        if cmd_name not in COMMANDS:
            from vbackup.cli import strangers

            return strangers.commands(ctx).get(cmd_name)
        command: click.Command = importlib.import_module(f"vbackup.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that ``args`` begin with, or suggest the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from vbackup.cli import strangers

            names = strangers.commands(ctx)
            if args[0] not in names:
                import difflib

                near = difflib.get_close_matches(args[0], (*COMMANDS, *names), n=1)
                ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all done, 1 something failed, 2 usage or configuration, 3 done with warnings. "
    "Plugins bring more commands: `vbackup plugins` lists them.",
)
@click.option("-c", "--config", type=click.Path(path_type=Path), metavar="FILE", help="The configuration file.")
@click.option("-v", "--verbose", count=True, help="Say more of what is done; twice for all of it.")
@json_option
@click.version_option(__version__, prog_name="vbackup", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, config: Path | None, verbose: int) -> None:
    """Back up and restore virtual machines."""
    state = context.ensure_object(State)
    state.config = config
    output.start_logging(verbose)
    if context.invoked_subcommand not in COMMANDS:
        from vbackup.cli import strangers

        context.obj = strangers.Context(state, context)


def main() -> None:
    """Run the command line of this process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # before `stop_signals` and after: Python would add a traceback
    stdout.open_missing()
    output.hear_strangers()
    sys.setswitchinterval(_TURN)
    gc.disable()  # all that is imported stays, so looking for garbage finds none; `State.site` turns it on
    state = State()
    code = _execute(sys.argv[1:], state)  # stdout is not shared again: what ends later may print, too
    output.flush()
    gc.freeze()  # nor is it looked for in all that goes with the process: a fifth of a short command
    end_in_time(code, state.loaded)
    sys.exit(code)


def execute(args: Sequence[str], state: State | None = None) -> int:
    """Run ``args`` in a process that goes on, and return the exit code."""
    try:
        return _execute(args, State() if state is None else state)
    finally:
        stdout.share()


def _execute(args: Sequence[str], state: State) -> int:
    """Everything that goes wrong has been told to the user when it returns."""
    context: click.Context | None = None
    try:
        with stop_signals(state.on_stop), cli.make_context("vbackup", list(args), obj=state) as context:
            result: Any = cli.invoke(context)
            return result if type(result) is int else OK
    except (click.exceptions.Exit, click.ClickException, click.Abort, SystemExit) as end:
        theirs = context is not None and context.invoked_subcommand not in COMMANDS
        return _ended(end, args, state) if theirs or _is_ours(end) else _failed(end, state)
    except Stopped as stopped:
        state.json &= not stopped.is_late  # there is one document on stdout
        _tell(state, "interrupted", f"stopped by {stopped.name}", "")
        return 128 + stopped.number
    except BaseException as error:  # noqa: BLE001 - the edge of the process: nothing may end in a traceback
        return _failed(error, state)


def _is_ours(end: BaseException) -> bool:
    """Whether our own code raised it, or click for us: what a plugin raises does not end a command of ours."""
    at, package = end.__traceback__, ""
    while at is not None:
        of = str(at.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        package = package if of == "click" else of
        at = at.tb_next
    return package == "vbackup"


def _ended(end: BaseException, args: Sequence[str], state: State) -> int:
    match end:
        case click.exceptions.Exit():
            return end.exit_code
        case click.UsageError():
            return _usage(end, as_json=state.json or "--json" in args)
        case click.ClickException():
            _tell(state, "usage" if end.exit_code == USAGE else "error", end.format_message(), "")
            return end.exit_code
        case SystemExit():  # a command of a plugin
            return end.code if type(end.code) is int else OK if end.code is None else FAILED
    _tell(state, "interrupted", "aborted", "")
    return FAILED


def _usage(error: click.UsageError, *, as_json: bool) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE
    message = " ".join(error.format_message().split())  # click puts choices on lines of their own
    if as_json:
        output.document({"error": {"kind": "usage", "message": message, "hint": ""}}, indent=None)
    if error.ctx is not None:
        output.lines(error.ctx.get_usage(), output.complain)
    output.error(message)
    return USAGE


def _failed(error: BaseException, state: State) -> int:
    from vbackup.api import ConfigError, PluginError, VBackupError
    from vbackup.guards.blame import presentable, told

    if os.environ.get("VBACKUP_DEBUG") == "1":
        import traceback

        output.lines("".join(traceback.format_exception(error)), output.complain)
    if not isinstance(error, VBackupError) and state.loaded is not None:
        explained = state.loaded.explained(error, "nobody expected that")
        error = explained if isinstance(explained, PluginError) else error
    if (known := presentable(error)) is not None:
        _tell(state, known.kind, known.message, known.hint)
        return USAGE if isinstance(known, ConfigError) else FAILED
    _tell(
        state,
        "internal",
        told(error),
        "This is a fault of vbackup; VBACKUP_DEBUG=1 shows where.",
    )
    return FAILED


def _tell(state: State, kind: str, message: str, hint: str) -> None:
    if state.json:
        output.document({"error": {"kind": kind, "message": message, "hint": hint}}, indent=None)
    *before, last = message.split("\n") if kind == "config" else [message]  # every problem, one a line
    for problem in before:
        output.error(problem)
    output.error(last, hint)
