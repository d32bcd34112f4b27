"""What ``vbackup doctor`` reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: ``what`` it is, how it is, and what to do about it."""

    what: str
    level: Level
    detail: str
    hint: str = ""
