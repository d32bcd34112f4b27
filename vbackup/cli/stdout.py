"""Whose stdout is: what a command prints may be JSON, so nothing that plugins print may come between."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO


class _Strangers:
    """Stands in the place of `sys.stdout`: what is printed to it goes to stderr, wherever that goes at the time."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    def write(self, text: str) -> int:
        """Print; whoever has gone that read it is no trouble of a plugin's."""
        with suppress(BrokenPipeError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Print what is left."""
        with suppress(BrokenPipeError):
            sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class _Kept:
    ours: TextIO
    before: TextIO
    """What `sys.stdout` was; it writes to the same file."""


_kept: _Kept | None = None


def open_missing() -> None:
    """Open what a process should have had from the start, for nowhere: ``2>&-`` leaves the number to any other file.

    What is said to stderr would be written into that one.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            setattr(sys, name, open(number, "r" if number == 0 else "w"))  # noqa: PTH123, SIM115 - for good


def stream() -> TextIO | None:
    """Return where our output goes; None when a plugin has taken even that."""
    return sys.stdout if _kept is None else _kept.ours


def keep() -> None:
    """Keep stdout for our output: what plugins print goes to stderr, and so do their children and C libraries."""
    global _kept  # noqa: PLW0603 - a process has one
    if _kept is None and sys.stdout is not None:
        _kept = _Kept(_apart(sys.stdout), sys.stdout)
        sys.stdout = _Strangers()


def share() -> None:
    """Let everybody print to stdout again."""
    global _kept
    if _kept is None:
        return
    _kept.ours.flush()
    if _kept.ours is not _kept.before:
        os.dup2(_kept.ours.fileno(), _kept.before.fileno())
        _kept.ours.close()
    sys.stdout, _kept = _kept.before, None


def _apart(stdout: TextIO) -> TextIO:
    """Return a stream to where ``stdout`` goes, whose descriptor nobody else knows: the well-known one is stderr's.

    A stream that is not this process's own, as in a test, is left as it is.
    """
    if stdout is not sys.__stdout__:
        return stdout
    stdout.flush()
    try:
        known = stdout.fileno()
        ours = os.dup(known)  # not inherited by children
        os.dup2(2, known)
    except OSError:  # stderr is closed: there is nowhere for them to print to
        return stdout
    return open(ours, "w", encoding=stdout.encoding, errors=stdout.errors)  # noqa: PTH123 - for good
