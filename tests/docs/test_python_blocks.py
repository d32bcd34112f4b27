"""The plugin authors' pages run: each from its first block to its last, as a reader does, in a directory of its own.

Files are written and commands are run as in `tests.docs.story`, and ``python`` blocks that are no file are executed;
those of one page share their names. ``/srv/try`` is where the reader begins.

There is no network: ``pip install --editable`` writes what the real one leaves for importlib, and nothing else (see
``installer.py``). That the real one installs such packages is tested with those in ``tests/thirdparty``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks, commands
from tests.docs.story import Story

PAGES = sorted((ROOT / "vbackup/docs/plugins").glob("*.md"))
INSTALLER = Path(__file__).with_name("installer.py")


class Author(Story):
    """A story in which Python is run, too, and packages are installed."""

    def __init__(self, page: Path, directory: Path) -> None:
        super().__init__(directory)
        self._site = directory / "site"
        self._programs = directory / "programs"
        for made in (self._place, self._site, self._programs):
            made.mkdir(exist_ok=True)
        pip = self._programs / "pip"
        pip.write_text(f'#!/bin/sh\nexec {sys.executable} {INSTALLER} "$@"\n')
        pip.chmod(0o755)
        self.module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")

    def do(self, block: Block) -> None:
        """See `Story.do`."""
        if block.file is not None:
            path = self._current / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._here(block.text))
        elif block.language == "python":
            # The empty lines make line numbers those of the page.
            code = compile("\n" * block.line + block.text, str(block.page), "exec")
            exec(code, vars(self.module))
        elif block.language == "console":
            for command, shown in commands(block.text):
                if command.startswith("cd "):
                    self._current = self._current / command.removeprefix("cd ")
                else:
                    self._run(block, command, shown)

    def _environment(self) -> dict[str, str]:
        paths = self._site / "paths"
        sources = paths.read_text().split() if paths.exists() else []
        environment = super()._environment()
        return environment | {
            "PATH": os.pathsep.join([str(self._programs), environment["PATH"]]),
            "SITE": str(self._site),
            "PYTHONPATH": os.pathsep.join([str(self._site), *sources]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:xdist",
            "COLUMNS": "120",
        }


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    author = Author(page, tmp_path)
    monkeypatch.chdir(tmp_path / "try")
    monkeypatch.setitem(sys.modules, author.module.__name__, author.module)  # pydantic looks names up there
    for block in blocks(page):
        author.do(block)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_what_is_shown_of_a_shell_is_run(page: Path) -> None:
    """What is not to be run is of the language ``sh``; nothing else, with a slip in it, is passed over."""
    languages = {block.language for block in blocks(page) if not block.language.startswith("{")}
    assert languages <= {"python", "console", "toml", "yaml", "text", "sh"}


def test_what_the_tutorials_build_is_typed(tmp_path: Path) -> None:
    """As strictly as vbackup itself: the classes are of their roles, as far as types can tell."""
    sources = []
    for page in PAGES:
        if page.stem.startswith("tutorial-"):
            directory = tmp_path / page.stem
            sources.append(directory / "src")
            for block in blocks(page):
                if block.file is not None and block.file.startswith("src/"):
                    path = directory / block.file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(block.text)
    packages = [str(package) for source in sources for package in source.iterdir()]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--explicit-package-bases",
         "--namespace-packages", f"--cache-dir={tmp_path / 'cache'}", "--config-file=", *packages],
        cwd=tmp_path, env=os.environ | {"MYPYPATH": os.pathsep.join(map(str, [ROOT, *sources]))},
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(packages) == 6
