"""The pages of the documentation, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
ADMIN = sorted((ROOT / "vbackup/docs/admin").glob("*.md"))
AUTHORS = sorted((ROOT / "vbackup/docs/plugins").glob("*.md"))
STRANGERS = sorted(ROOT.glob("tests/thirdparty/*/README.md"))
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted((ROOT / "vbackup/docs").glob("*.md")),
    *ADMIN,
]
"""All but those of plugin authors, which are done as a whole: see test_python_blocks.py."""

_BLOCK = re.compile(r"^```([a-z]*|\{[a-z-]+\})\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# file: (\S+)\n")
_INLINE = re.compile(r"`(vbackup [^`\n]+)`")


class Block(NamedTuple):
    """A fenced block: where it is, its language, its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The path of the file that it shows, by its first line: ``# file: PATH``."""
        found = _FILE.match(self.text)
        return found[1] if found else None


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def mentioned(page: Path) -> set[str]:
    """Command lines within the text."""
    return {found[1] for found in _INLINE.finditer(_BLOCK.sub("", page.read_text()))}


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block, and what it is shown to print.

    A command begins with ``$ `` and goes on in lines that begin with ``> ``.
    """
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        first, _, rest = part.partition("\n")
        lines = rest.splitlines(keepends=True)
        more = next((index for index, line in enumerate(lines) if not line.startswith("> ")), len(lines))
        yield "\n".join([first, *(line[2:].rstrip("\n") for line in lines[:more])]), "".join(lines[more:])
