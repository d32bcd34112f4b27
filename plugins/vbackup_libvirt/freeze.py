"""Freezing the guest's file systems for the moment of a capture: bounded in time, and always undone.

Three hold the promise: this process thaws as soon as the backup has begun and on every way out; a child thaws when
this process dies, when it cannot, or when the time is up (`guard`); and the journal has `sweep` thaw if both were
killed. None of them takes the guest for thawed before its agent says so: an agent that is late still does what it was
asked to do, and it may be asked to freeze while nobody waits for it any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from xml.etree.ElementTree import Element

from vbackup.api import GuestError, NotFound, Quiesce, VBackupError
from vbackup_libvirt import document
from vbackup_libvirt.connection import library, translated
from vbackup_libvirt.guard import Guard
from vbackup_libvirt.journal import CaptureEntry
from vbackup_libvirt.node import Machine
from vbackup_undo.journal import Journal


class Freeze:
    """How it went. ``notes`` say why the guest was not frozen at the moment, or that it may still be."""

    def __init__(self) -> None:
        self.frozen = False
        self.notes: list[str] = []

    def fail(self, quiesce: Quiesce, error: VBackupError) -> None:
        """Raise ``error``, or turn it into a note, as was asked."""
        self.frozen = False
        if quiesce is Quiesce.YES:
            raise error
        self.notes.insert(0, f"the guest was not frozen: {error.message}")


@contextmanager
def frozen(machine: Machine, quiesce: Quiesce, guard: Guard, journal: Journal[CaptureEntry]) -> Iterator[Freeze]:
    """Hold the guest frozen for the time of the context; look at the result after it.

    Raises: `GuestError` when it is asked for and cannot be had; `CaptureLost` is left to others.
    """
    freeze = Freeze()
    if quiesce is Quiesce.NO:
        yield freeze
        return
    if obstacle := _obstacle(machine):
        freeze.fail(quiesce, obstacle)
        yield freeze
        return
    hold = _Hold(machine, guard, journal, freeze)
    with ExitStack() as stack:
        stack.callback(hold.release)
        hold.begin()
        try:
            hold.freeze()
        except GuestError as error:
            stack.close()  # the agent may have frozen some of them, or be late
            freeze.fail(quiesce, error)
        yield freeze
        hold.moment_passed()
    if freeze.frozen and (failure := hold.failure()):
        freeze.fail(quiesce, failure)


class _Hold:
    """One freeze, from the first word to the last."""

    def __init__(self, machine: Machine, guard: Guard, journal: Journal[CaptureEntry], freeze: Freeze) -> None:
        self._machine = machine
        self._guard = guard
        self._journal = journal
        self._freeze = freeze
        self._began = time.monotonic()
        self._lasted = 0.0
        self._count = 0
        self._thawed: int | None = None

    def begin(self) -> None:
        """Have it undone by others if we die."""
        self._journal.update(frozen=True)
        self._guard.frozen()

    def freeze(self) -> None:
        """Raises: `GuestError`."""
        with (
            translated(f"{self._machine.name}: freezing the guest"),
            impatient(self._machine.domain, self._machine.node.options.agent_timeout) as agent,
        ):
            self._count = int(agent.fsFreeze())
        self._freeze.frozen = True

    def moment_passed(self) -> None:
        """The backup has begun."""
        self._lasted = time.monotonic() - self._began

    def release(self) -> None:
        """Thaw; where that cannot be done now the guard goes on, and the journal says so."""
        self._thawed = thaw(self._machine)
        if self._thawed is not None:
            self._guard.thawed()
            self._journal.update(frozen=False)
            return
        self._guard.thaw()
        self._freeze.notes.append(
            "the guest may be frozen: its agent, or libvirt, did not answer when it was to be thawed; that is tried "
            "for an hour, by each sweep, and by the next backup"
        )

    def failure(self) -> GuestError | None:
        """Return why the guest does not count as frozen when the backup began."""
        seconds = self._machine.node.options.freeze_timeout
        if self._lasted >= seconds:
            what = f"was thawed after {seconds} s, before the backup had begun"
        elif self._count and self._thawed == 0:
            what = "was thawed by something else, maybe before the backup had begun"
        else:
            return None
        return GuestError(f"{self._machine.name} {what}", transient=True)


def _obstacle(machine: Machine) -> GuestError | None:
    libvirt = library()
    state = machine.ask("asking for its state", lambda domain: domain.state()[0])
    if state != libvirt.VIR_DOMAIN_RUNNING:
        return GuestError(f"{machine.name} is paused, so its guest cannot freeze its file systems")
    live = machine.xml()
    if not document.has_agent(live):
        hint = "add a channel for org.qemu.guest_agent.0 and run qemu-guest-agent in the guest"
        return GuestError(f"{machine.name} has no channel for a guest agent", hint=hint)
    if _agent_is_away(live):
        return GuestError(f"{machine.name}: no guest agent is connected", hint="run qemu-guest-agent in the guest")
    return None


def _agent_is_away(live: Element) -> bool:
    agents = live.iterfind("devices/channel/target[@name='org.qemu.guest_agent.0']")
    return all(agent.get("state") == "disconnected" for agent in agents)


def thaw(machine: Machine) -> int | None:
    """Thaw the guest, as often as you like; returns how many file systems were, 0 if it is off.

    None: neither the agent nor libvirt can tell; the guest may be frozen, or may yet freeze when its agent is back.
    """
    try:
        with (
            translated(f"{machine.name}: thawing the guest"),
            impatient(machine.domain, machine.node.options.agent_timeout) as agent,
        ):
            return int(agent.fsThaw())
    except VBackupError:
        return 0 if _is_off(machine) else None


def _is_off(machine: Machine) -> bool:
    try:
        return not machine.is_active
    except NotFound:
        return True
    except VBackupError:
        return False


@contextmanager
def impatient(domain: Any, seconds: int) -> Iterator[Any]:
    """Have libvirt wait ``seconds`` for the agent's answer. Without limit is its default, which others may need."""
    domain.agentSetResponseTimeout(seconds, 0)
    try:
        yield domain
    finally:
        domain.agentSetResponseTimeout(library().VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)
