"""A page that is done from its first block to its last, as its reader does.

* A block that begins with ``# file: PATH`` is written to that file.
* Each ``$ command`` of a ``console`` block is run, and must print what is shown. ``...`` stands for anything. Ids,
  times and durations need only look alike; but what is shown as the same id must be, and may be used in a command.
  Figures with a decimal point may differ by a tenth: which blocks are read as samples is left to chance.
* ``/srv/try`` is a new directory, in which the scripts are that lie beside the page.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from math import isclose
from pathlib import Path

from tests.docs.pages import Block, commands

PLACE = "/srv/try"
SECONDS = 120
_FORMS = {
    "id": r"\b(?=[0-9a-f]*[a-f])(?:[0-9a-f]{32}|[0-9a-f]{16}|[0-9a-f]{8})\b",
    "time": r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?",
    "duration": r"\b\d+\.\d+ (?:s|sec)\b",
    "figure": r"(?<![\w.])\d+\.\d+(?![\w.])",
    "more": r"\s*\.\.\.\s*",
    "blank": r"\s+",
}
_LOOSE = {name: _FORMS[name] for name in ("time", "duration", "blank")} | {"more": ".*?"}
_FORM = re.compile("|".join(f"(?P<{name}>{form})" for name, form in _FORMS.items()))


class Story:
    """What a reader of one page has."""

    def __init__(self, directory: Path, page: Path | None = None) -> None:
        self._directory = directory
        self._place = self._current = directory / "try"
        self._place.mkdir()
        for script in page.parent.glob("*.py") if page else ():
            shutil.copy(script, self._place)
        self.known: dict[str, str] = {}
        """What the page shows of ids, and what they are here."""

    def do(self, block: Block) -> None:
        """Write a file or run commands. Raises: `AssertionError` telling where it is not as shown."""
        if block.file is not None:
            path = Path(self._here(block.file))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._here(block.text))
        elif block.language == "console":
            for command, shown in commands(block.text):
                self._run(block, command, shown)

    def _run(self, block: Block, command: str, shown: str) -> None:
        line = self._here(command)
        if line.startswith("cd "):
            self._current = Path(line.removeprefix("cd "))
            return
        done = subprocess.run(
            ["bash", "-c", line], cwd=self._current, text=True,
            env=self._environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        printed = done.stdout.replace(str(self._place), PLACE)
        where = f"{block.where}: $ {command}\n{printed}"
        assert done.returncode == 0, f"{where}\nended with exit code {done.returncode}"
        assert self.matches(shown, printed), f"{where}\nis not what is shown:\n{shown}"

    def _here(self, text: str) -> str:
        for shown, real in self.known.items():
            text = text.replace(shown, real).replace(shown[:8], real[:8])
        return text.replace(PLACE, str(self._place))

    def matches(self, shown: str, printed: str) -> bool:
        """Whether that is what was shown; remembers ids."""
        shown = shown.strip()
        pattern: list[str] = []
        captured: list[tuple[str, str]] = []
        position = 0
        for found in _FORM.finditer(shown):
            pattern += [
                re.escape(shown[position : found.start()]),
                self._pattern(str(found.lastgroup), found[0], captured),
            ]
            position = found.end()
        same = re.fullmatch("".join([*pattern, re.escape(shown[position:])]), printed.strip(), re.DOTALL)
        if same is None:
            return False
        pairs = [(form, text, real) for (form, text), real in zip(captured, same.groups(), strict=True)]
        self.known |= {text: real for form, text, real in pairs if form == "id"}
        return all(isclose(float(text), float(real), rel_tol=0.1) for form, text, real in pairs if form == "figure")

    def _pattern(self, form: str, text: str, captured: list[tuple[str, str]]) -> str:
        """Return what may stand for a ``text`` of some form; what is captured is noted."""
        if form in _LOOSE:
            return _LOOSE[form]
        known = next((real[: len(text)] for shown, real in self.known.items() if shown.startswith(text)), None)
        if known is not None:
            return re.escape(known)
        if (form, text) in captured and form == "id":
            return rf"(?:\{captured.index((form, text)) + 1})"
        captured.append((form, text))
        return rf"([0-9a-f]{{{len(text)}}})" if form == "id" else r"(\d+\.\d+)"

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "VBACKUP", "COV"))}
        return kept | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(self._directory),
            "VBACKUP_STATE_DIR": str(self._directory / "state"),
            "VBACKUP_CACHE_DIR": str(self._directory / "cache"),
        }
