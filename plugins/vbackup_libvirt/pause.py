"""Pausing a machine for a while: always undone, whatever becomes of us.

A guest that stays paused is as good as dead. So three see to it that it goes on, as with a freeze: this process on
every way out; the child of `guard` when this process dies or the time is up; and the journal, by a sweep. A mark,
`owed`, tells each of them whether one of the others has.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import PurePosixPath

from vbackup.api import NotFound, Unavailable, VBackupError
from vbackup_libvirt.connection import library
from vbackup_libvirt.guard import Guard
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine
from vbackup_libvirt.owed import Owed
from vbackup_undo.journal import Journal


class Pause:
    """One pause, from the first word to the last. ``notes`` say what was left undone."""

    def __init__(self, machine: Machine, guard: Guard, journal: Journal[CaptureEntry]) -> None:
        self.notes: list[str] = []
        self._machine = machine
        self._guard = guard
        self._journal = journal
        self._began = time.monotonic()
        self._name = ""
        self._run = ""
        self._is_unknown = False

    def begin(self) -> None:
        """Pause it, and have that undone by others if we die."""
        entry = self._journal.entry
        assert entry is not None  # noqa: S101 - for the type checker: a capture is journaled before it does anything
        self._name, self._run = PurePosixPath(entry.scratch).name, run_of(self._machine)
        self._journal.update(paused=(*entry.paused, self._name))  # first: the mark is found by it
        self._owed.make(self._run)
        self._guard.paused()
        self._began = time.monotonic()
        try:
            self._machine.ask("pausing it", lambda domain: domain.suspend())
        except Unavailable:
            self._is_unknown = True
            self._guard.resume()  # libvirt may yet do what it was asked to
            raise

    @property
    def _owed(self) -> Owed:
        return self._machine.node.owed(self._name)

    def release(self) -> None:
        """Resume it; where that cannot be done now the guard goes on, and the journal says so.

        So too after a pause of which nobody knows whether it was made: a machine that runs may be paused yet.
        """
        if not self._run:  # we have not come to it
            return
        if self._resumed():
            self._guard.resumed()
            entry = self._journal.entry
            earlier = () if entry is None else tuple(name for name in entry.paused if name != self._name)
            self._journal.update(paused=earlier)
            return
        self._guard.resume()
        self.notes.append(
            "the machine may be paused: libvirt did not answer when it was to be resumed; that is tried for an hour, "
            "by each sweep, and by the next backup"
        )

    def _resumed(self) -> bool:
        with self._owed.held():
            is_resumed = resume(self._machine, self._run) and not self._is_unknown
            if is_resumed:
                self._owed.settle()
            return is_resumed

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


def run_of(machine: Machine) -> str:
    """Return what tells this run of a machine from its next: a pause ends with it.

    libvirt numbers the runs, and begins anew when the host is started.
    """
    boot = machine.node.host.read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    return f"{boot} {machine.ask('asking for its number', lambda domain: domain.ID())}"


def settle(machine: Machine, owed: Owed) -> bool:
    """Resume a machine if that is still owed to it; whether it is not any more."""
    try:
        with owed.held() as run:
            if run is None:
                return True
            if not resume(machine, run):
                return False
            owed.settle()
    except VBackupError:
        return False
    return True


def resume(machine: Machine, run: str) -> bool:
    """Let a machine that we have paused go on, as often as you like; whether it is sure to do so, or to be off.

    One that is paused for another reason than a request, such as an I/O error or a snapshot by others, is left, and so
    is one that has been off since: ``run`` is what `run_of` was at the pause.
    """
    libvirt = library()
    try:
        if state(machine) != (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER):
            return True
        if run_of(machine) != run:
            return True
        with suppress(VBackupError):  # of jobs that begin or end just now; while one goes on, resuming fails
            _end_saving(machine)
        machine.ask("resuming it", lambda domain: domain.resume())
    except NotFound:
        return True
    except VBackupError:
        return False
    return True


def _end_saving(machine: Machine) -> None:
    """End what libvirt goes on with when who asked for it is dead: nothing can be resumed meanwhile."""
    stats = machine.ask("looking for jobs", lambda domain: domain.jobStats())
    if stats.get("operation") == library().VIR_DOMAIN_JOB_OPERATION_SNAPSHOT:
        machine.ask("ending the saving of its memory", lambda domain: domain.abortJob())
