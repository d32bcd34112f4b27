"""``vbackup doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

if TYPE_CHECKING:
    from vbackup.api import Finding


@click.command("doctor")
@json_option
@click.pass_obj
def command(state: State) -> int:
    """Look at what this machine, and all that is configured, has and lacks."""
    from vbackup.api import Level

    findings = _look(state)
    if state.json:
        keys = ("what", "level", "detail", "hint")
        output.document([{key: str(getattr(finding, key)) for key in keys} for finding in findings])
    else:
        for finding in findings:
            output.write(f"{finding.level:<8} {finding.what}: {finding.detail}")
            if finding.hint:
                output.write(f"{'':8} -> {finding.hint}")
    levels = {finding.level for finding in findings}
    return 1 if Level.ERROR in levels else 3 if Level.WARNING in levels else 0


def _look(state: State) -> list[Finding]:
    from vbackup.api import ConfigError, Finding, Level, PluginError
    from vbackup.config import find
    from vbackup.jobs.doctor import examine

    try:
        registry = state.registry()
    except PluginError as error:
        return [Finding("plugins", Level.ERROR, error.message, error.hint)]
    try:
        find(state.config)
    except ConfigError as error:
        nothing = Finding("configuration", Level.OK, f"{error.message}; only this machine was looked at")
        return [nothing, *examine(None, registry)]
    try:
        with state.site(registry) as site:
            return examine(site, registry)
    except (ConfigError, PluginError) as error:
        problems = [Finding("configuration", Level.ERROR, line, error.hint) for line in error.message.split("\n")]
    return [*problems, *examine(None, registry)]
