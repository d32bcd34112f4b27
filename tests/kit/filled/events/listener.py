"""Counts what becomes of machines, and logs it."""

from __future__ import annotations

import logging
import os
from collections import Counter
from typing import Literal

from pydantic import Field

from vbackup.api import JobFinished, JobProgress, JobStarted, Options

PREFIX = "VBACKUP_BELL_"
_log = logging.getLogger(__name__)
outcomes: Counter[str] = Counter()


class BellOptions(Options):
    """What the user may set."""

    tells: Literal["all", "errors"] = Field(default="all", description="of which machines: all, or those that failed")


def options() -> BellOptions:
    """Return what the environment says."""
    said = {name: os.environ.get(PREFIX + name.upper()) for name in BellOptions.model_fields}
    return BellOptions.model_validate({name: value for name, value in said.items() if value is not None})


def started(event: JobStarted) -> None:
    """Log it."""
    _log.info("%s: %s begins", event.job, event.machine)


def moved(event: JobProgress) -> None:
    """Nobody wants to know."""


def finished(event: JobFinished) -> None:
    """Count it."""
    outcomes["failed" if event.error else "done"] += 1
    if event.error or options().tells == "all":
        _log.info("%s: %s: %s", event.job, event.machine, event.error or "done")
