"""Pausing a machine for a while: always undone, whatever becomes of us.

A guest that stays paused is as good as dead. So three see to it that it goes on, as with a freeze: this process on
every way out; the child of `guard` when this process dies or the time is up; and the journal, by a sweep.
"""

from __future__ import annotations

import time

from vbackup.api import NotFound, Unavailable, VBackupError
from vbackup_libvirt.connection import library
from vbackup_libvirt.guard import Guard
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine
from vbackup_undo.journal import Journal


class Pause:
    """One pause, from the first word to the last. ``notes`` say what was left undone."""

    def __init__(self, machine: Machine, guard: Guard, journal: Journal[CaptureEntry]) -> None:
        self.notes: list[str] = []
        self._machine = machine
        self._guard = guard
        self._journal = journal
        self._began = time.monotonic()

    def begin(self) -> None:
        """Pause it, and have that undone by others if we die."""
        self._journal.update(paused=True)
        self._guard.paused()
        self._began = time.monotonic()
        try:
            self._machine.ask("pausing it", lambda domain: domain.suspend())
        except Unavailable:
            self._guard.resume()  # libvirt may yet do what it was asked to
            raise

    def release(self) -> None:
        """Resume it; where that cannot be done now the guard goes on, and the journal says so."""
        if resume(self._machine):
            self._guard.resumed()
            self._journal.update(paused=False)
            return
        self._guard.resume()
        self.notes.append(
            "the machine may be paused: libvirt did not answer when it was to be resumed; that is tried for an hour, "
            "by each sweep, and by the next backup"
        )

    @property
    def took_too_long(self) -> bool:
        """Whether the time for which it may be paused is up."""
        limit: int = self._machine.node.options.pause_timeout
        return time.monotonic() - self._began >= limit


def state(machine: Machine) -> tuple[int, int]:
    """Return a machine's state and the reason for it (virDomainState and the likes of virDomainPausedReason)."""
    now, why = machine.ask("asking for its state", lambda domain: domain.state())
    return int(now), int(why)


def is_paused(machine: Machine) -> bool:
    """Whether its processors stand still."""
    return bool(state(machine)[0] == library().VIR_DOMAIN_PAUSED)


def resume(machine: Machine) -> bool:
    """Let a machine that we have paused go on, as often as you like; whether it is sure to do so, or to be off.

    One that is paused for another reason than a request, such as an I/O error or a snapshot by others, is left.
    """
    libvirt = library()
    try:
        if state(machine) != (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER):
            return True
        # libvirt goes on saving when who asked for it is dead, and nothing can be resumed meanwhile.
        stats = machine.ask("looking for jobs", lambda domain: domain.jobStats())
        if stats.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_SNAPSHOT:
            machine.ask("ending the saving of its memory", lambda domain: domain.abortJob())
        machine.ask("resuming it", lambda domain: domain.resume())
    except NotFound:
        return True
    except VBackupError:
        return False
    return True
