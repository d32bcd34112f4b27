"""The only place that reads the clock, so that tests can turn it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """Return the time as an aware datetime in UTC."""
    return datetime.now(UTC)
