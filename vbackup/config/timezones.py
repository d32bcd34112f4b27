"""Time zones by their IANA names, and the one that this machine is in."""

from __future__ import annotations

import difflib
import logging
import os
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

LOCALTIME = Path("/etc/localtime")
_log = logging.getLogger(__name__)


def checked(name: str) -> str:
    """Return ``name`` if it is the name of a time zone. Raises `ValueError` saying what it must be."""
    if _named(name) is None:
        if not available_timezones():
            raise ValueError("cannot be looked up: this machine has no time zone data (install tzdata)")
        near = difflib.get_close_matches(name, available_timezones(), n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"must be the name of a time zone as in 'Europe/Berlin'{suggestion}")
    return name


def zone(name: str | None) -> tzinfo:
    """Return the time zone of that name, which is a `checked` one; that of this machine for None."""
    return ZoneInfo(name) if name is not None else _local()


def _local() -> tzinfo:
    # As the C library has it: TZ counts before the file, an empty one is UTC. The file is read, whether it is a link
    # or a copy, so its name does not matter.
    named = os.environ.get("TZ")
    if named == "":
        return UTC
    if named is not None:
        name = named.removeprefix(":")
        found = _read(Path(name)) if name.startswith("/") else _named(name)
        if found is not None:
            return found
        _log.warning("TZ is %r, which names no time zone; %s counts", named, LOCALTIME)
    return _read(LOCALTIME) or UTC


def _named(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # unknown; no possible name; a directory of zones
        return None


def _read(path: Path) -> tzinfo | None:
    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return None
