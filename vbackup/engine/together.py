"""Machines of a group, captured at one moment as near as it can be: each waits until the others are as far."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from vbackup.api import Interrupted

_LOOK = 0.5
"""Seconds between looks at whether all is to stop."""


class Together:
    """One capture of a group. Machines are ``hypervisor:machine``; ``absent`` says why some do not take part."""

    def __init__(
        self,
        group: str,
        machines: Collection[str],
        absent: Mapping[str, str],
        stop: threading.Event,
        *,
        at_once: int,
        longest_wait: float,
    ) -> None:
        """At most ``at_once`` machines are copied at the same time, though all are captured.

        After ``longest_wait`` seconds those that are ready go on without the others.
        """
        self.group = group
        self.id = uuid.uuid4().hex
        self._stop = stop
        self._longest_wait = longest_wait
        self._late = f"it was not ready within {longest_wait:g} s of the first"
        self._turns = threading.BoundedSemaphore(max(1, at_once))
        self._changed = threading.Condition()
        self._awaited = set(machines)
        self._apart = dict(absent)
        self._waiting: set[str] = set()
        self._gone: frozenset[str] | None = None
        self._deadline = 0.0

    def member(self, machine: str) -> Member:
        """Return a machine's part in it."""
        return Member(self, machine)

    def arrive(self, machine: str) -> None:
        """Wait until all that are awaited are here, or for the longest time. Raises: `Interrupted`."""
        with self._changed:
            if self._gone is not None:
                if machine not in self._gone:
                    self._apart.setdefault(machine, self._late)
                return
            self._deadline = self._deadline or time.monotonic() + self._longest_wait
            self._waiting.add(machine)
            self._go_if_all_are_here()
            while self._gone is None:
                if self._stop.is_set():
                    raise Interrupted(f"{machine} was not backed up: the run was stopped")
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._go()
                else:
                    self._changed.wait(min(left, _LOOK))

    def part(self, machine: str, why: str) -> None:
        """A machine takes no part, or none any more: nobody waits for it."""
        with self._changed:
            self._apart.setdefault(machine, why)
            self._awaited.discard(machine)
            self._waiting.discard(machine)
            self._go_if_all_are_here()

    def has_gone(self, machine: str) -> bool:
        """Whether a machine has gone with the others."""
        with self._changed:
            return self._gone is not None and machine in self._gone

    def missing(self) -> dict[str, str]:
        """Return the machines that are known not to be captured with the others, and why."""
        with self._changed:
            late = self._awaited - self._gone if self._gone is not None else set()
            return {**dict.fromkeys(sorted(late), self._late), **self._apart}

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold one of the turns to copy."""
        with self._turns:
            yield

    def _go_if_all_are_here(self) -> None:
        if self._gone is None and self._waiting and self._waiting >= self._awaited:
            self._go()

    def _go(self) -> None:
        self._gone = frozenset(self._waiting)
        self._changed.notify_all()


class Member:
    """A machine's part in a `Together`."""

    def __init__(self, together: Together, machine: str) -> None:
        self._together = together
        self._machine = machine
        self._has_come = False
        self._noted: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The group's name."""
        return self._together.group

    @property
    def together(self) -> str:
        """What all points of this moment have in common; empty when this machine is not of it."""
        return "" if self._machine in self._together.missing() else self._together.id

    def moment(self) -> None:
        """See `CaptureRequest.moment`."""
        self._has_come = True
        self._together.arrive(self._machine)

    def captured(self) -> None:
        """The capture is open."""
        if not self._has_come:
            self._together.part(self._machine, "its hypervisor plugin does not wait for other machines")

    def again(self) -> None:
        """The capture failed, and is made once more: what was noted is lost with its point."""
        self._noted = ()
        if self._together.has_gone(self._machine):
            self._together.part(self._machine, "its first capture failed after the others were made")

    def leave(self, why: str) -> None:
        """There will be no point."""
        self._together.part(self._machine, why)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold one of the turns to copy."""
        with self._together.turn():
            yield

    def notes(self) -> tuple[str, ...]:
        """Return what there is to note that was not noted before."""
        missing = self._together.missing()
        if self._machine in missing:
            found: tuple[str, ...] = (
                f"captured apart from the rest of group {self.group}, of another moment: {missing[self._machine]}",
            )
        else:
            found = tuple(
                f"group {self.group} was captured without {machine}: {why}" for machine, why in sorted(missing.items())
            )
        fresh = tuple(note for note in found if note not in self._noted)
        self._noted += fresh
        return fresh
