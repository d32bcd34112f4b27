"""Checks of values that plugins return."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from vbackup.api import PluginError
from vbackup.guards.blame import Blame

T = TypeVar("T")


def kind_of(value: object) -> str:
    """Say what a value is by its type: what is in it is not for messages."""
    return "nothing (None)" if value is None else f"a value of type {type(value).__name__}"


def listed(values: Iterable[T], of: type[T | object], method: str, blame: Blame) -> list[T]:
    """Return values, all of one type, as a list. Raises: `PluginError`."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise blame.error(f"{method} gave {kind_of(values)}, not several of {of.__name__}")
    found: list[T] = []
    for value in values:
        if not isinstance(value, of):
            raise blame.error(f"{method} gave {kind_of(value)} among what must be of type {of.__name__}")
        found.append(value)
    return found


def checked(value: object, of: type[T], method: str, blame: Blame) -> T:
    """Return a value of a type; True and False are no numbers here. Raises: `PluginError`."""
    if not isinstance(value, of) or (isinstance(value, bool) and of is not bool):
        raise wrong(value, of.__name__, method, blame)
    return value


def wrong(value: object, wanted: str, method: str, blame: Blame) -> PluginError:
    """Return the error for a value of another type."""
    return blame.error(f"{method} gave {kind_of(value)}, not {wanted}")
