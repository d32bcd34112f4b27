"""Checks of values that plugins return."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from vbackup.api import Finding, Level, PluginError
from vbackup.guards.blame import Blame, told, told_value

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
_AROUND = b"[" * 8, b"]" * 8
"""At least as deep as the documents go that a stored value becomes a part of."""


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


def sound(value: object, of: type[T], method: str, blame: Blame) -> T:
    """Return a value of a type whose fields, and theirs, are of the types that its class says. Raises: `PluginError`.

    For dataclasses and named tuples; their numbers are all sizes and counts, so none is below 0. A list may stand for a
    tuple.
    """
    misfit = _misfit(value, of, "")
    if misfit is None:
        return value  # type: ignore[return-value]  # it fits
    whose = f"a {of.__name__} whose {misfit.name.removeprefix('.')} is " if misfit.name else ""
    what = told_value(misfit.value) if type(misfit.value) is int else kind_of(misfit.value)
    raise blame.error(f"{method} gave {whose}{what}, not {misfit.wanted}")


def findings(values: Iterable[Finding], method: str, blame: Blame) -> list[Finding]:
    """Return what a plugin found, each of a known level. Raises: `PluginError`."""
    found = []
    for finding in listed(values, Finding, method, blame):
        try:
            level = Level(finding.level)
        except ValueError:
            known = ", ".join(Level)
            said = f"{method} gave a Finding whose level is {told_value(finding.level)}, none of {known}"
            raise blame.error(said) from None
        fit = finding if finding.level is level else Finding(finding.what, level, finding.detail, finding.hint)
        found.append(sound(fit, Finding, method, blame))
    return found


def valid(model: M, of: type[M], method: str, blame: Blame) -> M:
    """Return a model that passes the checks of its class, which may have been left out. Raises: `PluginError`.

    It may be of a subclass, and is returned with all that this adds. Only where a field is not quite of its type (a
    text for a time), a plain one is made anew. Built-in plugins leave out no checks, and are spared it.
    """
    if blame.builtin:
        return model
    fields = _adapter(of).dump_python(model, warnings=False)
    try:
        of.model_validate(fields, strict=True)
    except ValidationError:
        return _made(of, fields, method, blame)
    return model


def as_json(value: object, what: str, blame: Blame) -> str:
    """Return a value as it is stored. Raises: `PluginError`."""
    before, after = _AROUND
    try:
        text = json.dumps(value, allow_nan=False)
        from_json(before + to_json(json.loads(text)) + after)  # as it is stored: less deep, and no half characters
    except (TypeError, ValueError, RecursionError) as error:
        raise blame.error(f"{what} cannot be stored as JSON: {error}") from error
    return text


def _made(of: type[M], fields: object, method: str, blame: Blame) -> M:
    try:
        return of.model_validate(fields)
    except ValidationError as error:
        raise blame.error(f"{method} gave a {of.__name__} that is none: {told(error)}") from error


@cache
def _adapter(of: type[M]) -> TypeAdapter[M]:
    return TypeAdapter(of)


class _Misfit(NamedTuple):
    name: str
    """Where it is in the whole value: ``.damage[0].offset``."""
    value: object
    wanted: str


def _misfit(value: object, hint: Any, name: str) -> _Misfit | None:
    if hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return None if fits else _Misfit(name, value, "a number from 0 on")
    kind = get_origin(hint) or hint
    if kind is Literal:
        fits = isinstance(value, str) and value in get_args(hint)
        return None if fits else _Misfit(name, value, f"one of {', '.join(get_args(hint))}")
    if not isinstance(value, (tuple, list) if kind is tuple else kind):
        return _Misfit(name, value, kind.__name__)
    found = (_misfit(part, inner, name + at) for part, inner, at in _parts(value, hint))
    return next((each for each in found if each is not None), None)


def _parts(value: Any, hint: Any) -> Iterator[tuple[object, Any, str]]:
    """Yield what a value is made of, the types of that, and where it is."""
    if get_origin(hint) is tuple:
        yield from ((part, get_args(hint)[0], f"[{at}]") for at, part in enumerate(value))
    elif is_dataclass(hint) or hasattr(hint, "_fields"):
        yield from ((getattr(value, field, None), inner, f".{field}") for field, inner in _hints(hint).items())


@cache
def _hints(of: type) -> dict[str, Any]:
    return get_type_hints(of)
