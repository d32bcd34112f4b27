"""Machines of a group, captured at one moment as near as it can be: each waits until the others are as far."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

from vbackup.api import Interrupted, clock

_LOOK = 0.5
"""Seconds between looks at whether all is to stop."""
LATEST = 60.0
"""Seconds by which a machine's moment may miss that at which all were let go. Freezing a guest and beginning a snapshot
take some; Windows thaws by itself what is frozen for a minute (VSS). What takes longer was held up by something else,
such as the job of another program, and the machines have worked on with each other meanwhile.
"""


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
        self.members = tuple(sorted({*machines, *absent}))
        self._stop = stop
        self._longest_wait = longest_wait
        self._late = f"it was not ready within {longest_wait:g} s of the first"
        self._turns = threading.BoundedSemaphore(max(1, at_once))
        self._changed = threading.Condition()
        self._awaited = set(machines)
        self._apart = dict(absent)
        self._waiting: set[str] = set()
        self._gone: frozenset[str] | None = None
        self._opened: datetime | None = None
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

    def was_captured(self, machine: str, moment: datetime) -> None:
        """A machine's capture is open; one of another moment than the others' takes no part."""
        with self._changed:
            if self._opened is None or self._gone is None or machine not in self._gone:
                return
            off = (moment - self._opened).total_seconds()
        if abs(off) > LATEST:
            when = "after" if off > 0 else "before"
            self.part(machine, f"its capture is of {abs(off):.0f} s {when} the moment at which all were ready")

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
        self._opened = clock.now()
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
    def members(self) -> tuple[str, ...]:
        """All machines of the group, also those that take no part."""
        return self._together.members

    @property
    def together(self) -> str:
        """What all points of this moment have in common; empty when this machine is not of it."""
        return "" if self._machine in self._together.missing() else self._together.id

    def moment(self) -> None:
        """See `CaptureRequest.moment`."""
        self._has_come = True
        self._together.arrive(self._machine)

    def captured(self, moment: datetime) -> None:
        """The capture is open; ``moment`` is `Capture.time`."""
        if self._has_come:
            self._together.was_captured(self._machine, moment)
        else:
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
