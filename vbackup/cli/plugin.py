"""``vbackup plugin``: for those who write plugins."""

from __future__ import annotations

from pathlib import Path

import click

from vbackup.cli import output
from vbackup.cli.state import State, json_option

_ROLES = ("hypervisor", "transport", "codec", "target", "executor", "events", "command")


@click.group("plugin")
@json_option
def command() -> None:
    """Write plugins; `vbackup plugins` lists those that are installed."""


@command.command("new")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), required=True, help="What the plugin is to be.")
@click.option(
    "--directory", type=click.Path(path_type=Path), metavar="DIR", help="Where it goes; ./vbackup-NAME without it."
)
@json_option
@click.pass_obj
def new(state: State, name: str, role: str, directory: Path | None) -> None:
    """Write a package for a new plugin.

    NAME is what stands behind `type:` in the configuration, or behind `vbackup`. The package has a skeleton, tests of
    the role's contract, a README and a CI file. The tests run at once; they fail where something is still to be
    written, and say where.
    """
    from vbackup.scaffold import ROLES, Names, make, refuse_taken

    names = Names.checked(name, ROLES[role])
    refuse_taken(names, ROLES[role], state.registry())
    made = make(names, ROLES[role], directory or Path(names.distribution))
    if state.json:
        output.document(
            {
                "directory": str(made.directory.absolute()),
                "distribution": made.distribution,
                "module": made.module,
                "files": list(made.files),
            }
        )
        return
    for file in made.files:
        output.write(str(made.directory / file))
    output.lines(_next(made.directory, f"src/{made.module}/{ROLES[role].main}"))


def _next(directory: Path, main: str) -> str:
    from shlex import quote

    return f"""
Next:
  cd {quote(str(directory))}
  python3 -m venv .venv
  .venv/bin/pip install --upgrade "pip>=25.1"
  .venv/bin/pip install --editable . --group dev
  .venv/bin/pytest     # fails where something is still to be written, and says where
Where no index has vbackup, install its wheel into .venv before. Begin in {main}."""
