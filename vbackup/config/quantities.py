"""Sizes, rates, times and days as people write them, in the configuration and on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core.core_schema import CoreSchema, no_info_before_validator_function

_DIGITS = r"\d{1,18}(?:\.\d{1,18})?"
_SIZE = re.compile(rf"({_DIGITS}) ?(?:([KMGTP])(?:iB)?|B)?", re.ASCII | re.IGNORECASE)
_SPAN = re.compile(rf"({_DIGITS}) ?(s|m|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST = 1_000_000 * 3600
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|(24):(00)", re.ASCII)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAYS = re.compile(rf"({'|'.join(DAYS)})(?:-({'|'.join(DAYS)}))?")


def size(text: str) -> int:
    """Return the bytes of ``500M`` or ``1.5GiB``: units are powers of 1024, none is bytes. Raises: `ValueError`."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError("must be a size as in 500M or 1.5GiB")
    return int(float(found[1]) * 1024 ** " KMGTP".index((found[2] or " ").upper()))


def rate(text: str) -> int:
    """Return the bytes a second of ``20MiB/s``. Raises: `ValueError`."""
    number = text.removesuffix("/s")
    if number == text or not _SIZE.fullmatch(number) or size(number) < 1:
        raise ValueError("must be a rate in bytes as in 500K/s or 20MiB/s")
    return size(number)


def seconds(text: str) -> float:
    """Return the seconds of ``30s``, ``10m``, ``12h``, ``30d`` or ``4w``. Raises: `ValueError`."""
    found = _SPAN.fullmatch(text)
    if found is None or float(found[1]) * _SECONDS[found[2]] > _LONGEST:
        raise ValueError("must be a time with its unit, as in 30s, 10m, 12h or 30d")
    return float(found[1]) * _SECONDS[found[2]]


def minute_of_day(text: str) -> int:
    """Return the minutes since midnight of ``08:30``; up to ``24:00``. Raises: `ValueError`."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError('must be a time of day in quotes, as in "08:30"')
    return int(found[1] or found[3]) * 60 + int(found[2] or found[4])


def days(text: str) -> frozenset[int]:
    """Return the days of ``mon-fri, sun``, Monday being 0. Raises: `ValueError`."""
    result: set[int] = set()
    for part in text.split(","):
        found = _DAYS.fullmatch(part.strip())
        if found is None:
            raise ValueError("must be days as in mon-fri or sat,sun")
        first, last = DAYS.index(found[1]), DAYS.index(found[2] or found[1])
        result.update((first + step) % 7 for step in range((last - first) % 7 + 1))
    return frozenset(result)


class Written:
    """Marks a field that is written as a text, which ``parse`` reads; ``pattern`` tells editors how it looks."""

    def __init__(self, parse: Callable[[str], object], pattern: str, *, or_integer: bool = False) -> None:
        self._parse = parse
        self._types = (str, int) if or_integer else (str,)
        self._schema = {"type": ["string", "integer"] if or_integer else "string", "pattern": pattern}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self._read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        del schema, handler
        return dict(self._schema)

    def _read(self, value: object) -> object:
        return self._parse(str(value) if type(value) in self._types else "")


_NUMBER = r"[0-9]+(\.[0-9]+)? ?"
_UNIT = r"([KMGTPkmgtp]([iI][bB])?|[bB])?"

Size = Annotated[int, Written(size, f"^{_NUMBER}{_UNIT}$", or_integer=True)]
"""Bytes, written as `size` has it, or as a number."""
Rate = Annotated[int, Written(rate, f"^{_NUMBER}{_UNIT}/s$")]
"""Bytes a second, written as `rate` has it."""
Seconds = Annotated[float, Written(seconds, f"^{_NUMBER}[smhdw]$")]
"""Seconds, written as `seconds` has it."""
MinuteOfDay = Annotated[int, Written(minute_of_day, "^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$")]
"""Minutes since midnight, written as `minute_of_day` has it."""
Days = Annotated[frozenset[int], Written(days, "^[a-z]{3}(-[a-z]{3})?( ?, ?[a-z]{3}(-[a-z]{3})?)*$")]
"""Days of the week, Monday being 0, written as `days` has it."""
