"""Everything that is printed goes through here.

Names of machines, disks and files come from strangers, and messages from plugins: nothing is printed that a terminal
would obey, nor more lines than are meant.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from vbackup.cli import stdout

log = logging.getLogger(__name__)

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are shown as escapes: controls, invisible marks (also those that turn text around)."""


def clean(text: str) -> str:
    """Return ``text`` with every character that is not plainly visible as a backslash escape; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in _UNSAFE else char.encode("unicode_escape").decode()
        for char in text
    )


def line(text: str) -> str:
    """Return ``text`` as one line that is safe to show: ends of lines are escapes, too."""
    return clean(text).replace("\n", "\\n")


def write(text: str) -> None:
    """Print a line to stdout."""
    _print(stdout.stream(), line(text))


def complain(text: str) -> None:
    """Print a line to stderr."""
    _print(sys.stderr, line(text))


def lines(text: str, show: Callable[[str], None] = write) -> None:
    """Print each line of a text that is meant to have several."""
    for each in text.split("\n"):
        show(each)


def error(message: str, hint: str = "") -> None:
    """Print an error and what to do about it to stderr."""
    complain(f"vbackup: error: {message}")
    if hint:
        complain(f"hint: {hint}")


def warning(message: str) -> None:
    """Print a warning to stderr."""
    complain(f"vbackup: warning: {message}")


def document(value: Any, *, indent: int | None = 2) -> None:
    """Print ``value`` as JSON (ASCII only) to stdout; ``indent=None`` puts it on one line."""
    import json

    _print(stdout.stream(), json.dumps(value, indent=indent))


def flush() -> None:
    """Write out what is left. A reader that went away is not an error of ours."""
    stream = stdout.stream()
    if stream is not None:
        try:
            stream.flush()
        except OSError:  # what is told to it is flushed: it was said then
            _silence(stream)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: frozenset[str] = frozenset()) -> None:
    """Print rows under headings to stdout, as wide as they need; ``numbers`` go right."""
    cells = [tuple(columns), *(tuple(map(line, row)) for row in rows)]
    spans = [[_width(cell) for cell in row] for row in cells]
    widest = [max(column) for column in zip(*spans, strict=True)]
    padded_rows = []
    for row, spanned in zip(cells, spans, strict=True):
        gaps = (" " * (most - span) for most, span in zip(widest, spanned, strict=True))
        padded = (
            gap + cell if column in numbers else cell + gap
            for column, cell, gap in zip(columns, row, gaps, strict=True)
        )
        padded_rows.append("  ".join(padded).rstrip())
    _print(stdout.stream(), "\n".join(padded_rows))


def _width(text: str) -> int:
    """Return the columns that a terminal shows a line in: two of a wide character, none of a mark on another."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def size(count: int) -> str:
    """Return a number of bytes for people (``1.5 GiB``)."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def duration(seconds: float) -> str:
    """Return a time span for people (``1:02:03`` or ``4.2 s``)."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def moment(time: datetime) -> str:
    """Return a time as RFC 3339 in UTC (``2026-01-31T12:00:00Z``)."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def start_logging(verbose: int) -> None:
    """Send log records to stderr: warnings, or also what is done (1), or everything (2)."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Stderr)]:
        root.removeHandler(handler)
    root.addHandler(_Stderr())
    root.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])


def hear_strangers() -> None:
    """Have warnings, and what ends a thread or a finalizer, told in a line as all else is, and never as a traceback."""
    logging.captureWarnings(capture=True)
    warnings.formatwarning = _warned
    threading.excepthook = lambda ended: _ended(f"thread {ended.thread.name if ended.thread else ''}", ended.exc_value)
    sys.unraisablehook = lambda ended: _ended(ended.err_msg or "a finalizer", ended.exc_value)


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    del line  # the text of the source
    return f"{filename}:{lineno}: {category.__name__}: {message}"


def _ended(what: str, error: BaseException | None) -> None:
    from vbackup.guards.blame import told

    if error is not None and not isinstance(error, SystemExit):
        log.error("%s was ended by %s", what, told(error), exc_info=error)


class _Stderr(logging.Handler):
    """Looks `sys.stderr` up for each record, as a progress display puts itself there for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001 - arguments may be anything, and this is only a log
            message = f"{record.msg} (its arguments cannot be shown: {type(error).__name__})"
        complain(f"vbackup: {record.levelname.lower()}: {message}")
        if record.exc_info and os.environ.get("VBACKUP_DEBUG") == "1":
            lines(logging.Formatter().formatException(record.exc_info), complain)


def _print(stream: TextIO | None, text: str) -> None:
    """Print, and go on when nobody reads it. Raises: `VBackupError` when stdout takes no more."""
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        _silence(stream)
    except OSError as error:
        _silence(stream)
        if stream is not sys.stderr:
            from vbackup.api.errors import VBackupError

            raise VBackupError(f"stdout cannot be written to: {error.strerror}") from error


def _silence(stream: TextIO) -> None:
    # The reader is gone, as of `vbackup list | head -1`; what we do goes on, unseen.
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())
