"""Targets that take points of one another as they are stored: an optional part of the target role."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

from vbackup.api.events import DiskProgress
from vbackup.api.target import Point, Target, Writer


class TakenOver(NamedTuple):
    """A point that was taken over and is durable, and what that came to."""

    point: Point
    read: int
    """Bytes that were read from the source's store, beside what tells where they are."""


@runtime_checkable
class Exchanger(Protocol):
    """A target that shares keys with others of its type, so that points go from one to the other undecoded."""

    def init_with_keys_of(self, other: Target) -> None:
        """Like `Target.init`, with the keys of ``other``: points can be exchanged then.

        Raises: `Unsupported`, `ConfigError` when the two do not fit; `WrongKey` when that of ``other`` does not read.
        """

    def exchanges_with(self, source: Target) -> bool:
        """Whether `take_over` works."""

    def take_over(
        self, writer: Writer, source: Target, point: Point, base: Point | None, report: Callable[[DiskProgress], None]
    ) -> TakenOver:
        """Commit a copy of a point of ``source`` to a writer of this target; a key that only writes suffices.

        ``base`` is an earlier point of the machine in this target: what it shares with the point is not looked at.
        What ``report`` raises ends the work. Raises: `Corrupt` naming the source's object, and what `Writer.commit`
        raises.
        """
