"""The recovery sheet: a key on paper, as text and as a QR code, with what is needed to use it in years."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import segno

from vbackup.api import Unsupported
from vbackup.jobs.typed import rows_of

_USE = (
    "Who has this sheet can read all backups in the repository. Keep it where you keep what is precious, off line.",
    "To use it, scan the code and save its text in a file KEYFILE (mode 0600), as one line.",
    "Or type the rows with their numbers into a file, and run `vbackup key import FILE KEYFILE`.",
    "Then name KEYFILE in the configuration, as `key: {file: KEYFILE}` of the target, and run `vbackup list`.",
)


@dataclass(frozen=True)
class Sheet:
    """What stands on it."""

    secret: bytes
    repository: str
    target: str
    made: datetime
    location: Sequence[str]
    """Phrases that say where the repository is."""

    def facts(self) -> list[tuple[str, str]]:
        """Return what is not secret, as (name, value)."""
        when = self.made.strftime("%Y-%m-%d %H:%M %Z")
        return [("repository", self.repository), ("target", self.target), ("printed", when)] + [
            ("where", place) for place in self.location
        ]

    def render(self, ending: str) -> bytes:
        """Return the sheet as a file with this ending, ``.html`` or ``.txt``. Raises: `Unsupported`."""
        if ending == ".html":
            return self._html().encode()
        if ending == ".txt":
            return self._text().encode()
        raise Unsupported(f"a sheet cannot be made as {ending or 'a file without ending'}", hint="use .html or .txt")

    def _text(self) -> str:
        facts = [f"{name:<11} {value}" for name, value in self.facts()]
        parts = ["vbackup recovery key", "", *facts, "", *_USE, "", *rows_of(self.secret), "", self.secret.decode(), ""]
        return "\n".join(parts) + _drawn(code(self.secret))

    def _html(self) -> str:
        facts = "".join(f"<tr><th>{html.escape(name)}<td>{html.escape(value)}" for name, value in self.facts())
        use = "".join(f"<p>{html.escape(line)}" for line in _USE)
        rows = html.escape("\n".join(rows_of(self.secret)))
        drawn = io.BytesIO()
        code(self.secret).save(drawn, kind="svg", scale=5, xmldecl=False, svgns=False, nl=False)
        return (
            '<!DOCTYPE html>\n<html lang="en"><meta charset="utf-8"><title>vbackup recovery key</title>\n'
            "<style>body{font:12pt serif;max-width:40em;margin:2em}th{text-align:left;padding-right:1em}"
            "pre{font:14pt monospace}code{word-break:break-all}</style>\n"
            f"<h1>vbackup recovery key</h1>\n<table>{facts}</table>\n{use}\n<pre>{rows}</pre>\n"
            f"<p><code>{html.escape(self.secret.decode())}</code>\n<p>{drawn.getvalue().decode()}\n</html>\n"
        )


def code(secret: bytes) -> segno.QRCode:
    """Return the QR code of a key file's content."""
    return segno.make_qr(secret.decode(), error="m")


def _drawn(made: segno.QRCode) -> str:
    """Draw with half blocks, two rows to a line, dark on light."""
    rows = [list(row) for row in made.matrix_iter(border=4)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(" ▄▀█"[2 * upper + lower] for upper, lower in zip(*pair, strict=True)) for pair in pairs)
    return "\n".join(line.rstrip() for line in lines) + "\n"
