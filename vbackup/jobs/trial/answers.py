"""What a trial says of a store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How the store did."""

    OK = "ok"
    FAILS = "fails"
    """It does not do what vbackup relies on, or what it says that it does."""
    CANNOT = "cannot"
    """It does not have it, and says so; or it cannot be seen from here."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict, what was seen, and what to do about it."""

    verdict: Verdict
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one trial."""

    name: str
    answer: Answer

    @property
    def verdict(self) -> Verdict:
        """How the store did."""
        return self.answer.verdict


def ok(detail: str) -> Answer:
    """It works."""
    return Answer(Verdict.OK, detail)


def fails(detail: str, hint: str = "") -> Answer:
    """It does not."""
    return Answer(Verdict.FAILS, detail, hint)


def cannot(detail: str, hint: str = "") -> Answer:
    """It is not there."""
    return Answer(Verdict.CANNOT, detail, hint)
