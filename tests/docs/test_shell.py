"""What the pages show in a shell works as it is shown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path

import click
import pytest

from tests.docs.pages import ADMIN, PAGES, ROOT, blocks, commands, mentioned
from tests.docs.story import Story
from vbackup.cli.main import cli
from vbackup.cli.state import State
from vbackup.docs.commands import every
from vbackup.registry import Registry

TOLD = [page for page in ADMIN if any(block.language == "console" for block in blocks(page))]
WRITTEN = [page for page in PAGES if page.name != "commands.md"]
OPERATORS = {"|", "||", "&&", ";", ">", ">>", "&"}


@pytest.mark.parametrize("page", TOLD, ids=[page.stem for page in TOLD])
def test_a_page_for_administrators_runs(page: Path, tmp_path: Path) -> None:
    story = Story(tmp_path, page)
    for block in blocks(page):
        story.do(block)


def test_the_quick_start_is_one_of_them() -> None:
    assert "quickstart" in {page.stem for page in TOLD}


def lines(page: Path) -> list[tuple[str, list[str]]]:
    """Return the command lines of vbackup in a page's blocks, and where they are."""
    found = []
    for block in blocks(page):
        told = [line for line, _ in commands(block.text)] if block.language == "console" else block.text.splitlines()
        for line in told:
            if line.startswith("vbackup "):
                words = shlex.shlex(line, posix=True, punctuation_chars=True)
                words.whitespace_split = True
                own = list(takewhile(lambda word: word not in OPERATORS, words))
                found.append((f"{block.where}: {line}", own[1:]))
    return found


@cache
def known() -> Mapping[str, click.Command]:
    return dict(every(Registry.load()))


def parse(words: list[str]) -> None:
    """Let click read a command line to its end, without doing anything. Raises: `click.UsageError`."""
    context = cli.make_context("vbackup", list(words), obj=State())
    command: click.Command | None = cli
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        context = command.make_context(name, words, parent=context)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_can_be_read(page: Path) -> None:
    wrong = []
    for where, words in lines(page):
        try:
            parse(words)
        except click.UsageError as error:
            wrong.append(f"{where}: {error.format_message()}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_mentioned_is_one(page: Path) -> None:
    """With its options; what is no option may be left out in the text."""
    groups = {name.partition(" ")[0] for name in known()}
    wrong = []
    for line in sorted(mentioned(page)):
        words = [word.partition("=")[0] for word in line.split()[1:]]
        named = [word for word in words if not word.startswith("-")][:2]
        command = known().get(" ".join(named)) or known().get(named[0] if named else "")
        options = {option for each in (command, cli) if each for parameter in each.params for option in parameter.opts}
        unknown = [word for word in words if word.startswith("-") and word not in options | {"--help"}]
        if (named and named[0] not in groups) or (command and unknown):
            wrong.append(line)
    assert wrong == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("", ""),
        ("one\n...\nthree", "one\ntwo\nthree\n"),
        ("ID        TIME\nd0adf39b  0.2 s", "ID         TIME\n12345678  12.0 s\n"),
        ("1.4 MiB  49.8", "1.3 MiB  46.1"),
        ("d0adf39b of 2026-11-23T07:30:38Z, d0adf39b", "1111111a of 2027-01-01T00:00:00Z, 1111111a"),
    ],
)
def test_what_is_printed_is_what_is_shown(shown: str, printed: str, tmp_path: Path) -> None:
    assert Story(tmp_path).matches(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("", "x"), ("x", ""), ("64.0 MiB", "32.0 MiB"), ("d0adf39b d0adf39b", "1111111a 1111111b"), ("a...b", "b...a")],
)
def test_anything_else_is_noticed(shown: str, printed: str, tmp_path: Path) -> None:
    assert not Story(tmp_path).matches(shown, printed)


def test_an_id_is_the_same_later_on(tmp_path: Path) -> None:
    story = Story(tmp_path)
    assert story.matches("d0adf39b94e74884b06416b1507c3fe5", "11111111222222223333333344444444")
    assert story.matches("d0adf39b", "11111111")
    assert not story.matches("d0adf39b", "11111112")


def test_commands_are_told_from_what_they_print() -> None:
    assert list(commands("$ one\nprinted\n$ two \\\n> more\n")) == [("one", "printed\n"), ("two \\\nmore", "")]
