"""The README names all that there is to do."""

from __future__ import annotations

from pathlib import Path

import click

TEXT = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_readme_names_every_command() -> None:
    from vbackup.cli.main import cli

    assert [name for name in cli.list_commands(click.Context(cli)) if f"vbackup {name}" not in TEXT] == []


def test_the_readme_names_every_key_command() -> None:
    from vbackup.cli.key import command

    assert [name for name in command.commands if f"vbackup key {name}" not in TEXT] == []
