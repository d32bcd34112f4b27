"""Freezing the guest's file systems for the moment of a capture: bounded in time, and always undone.

Three hold the promise: this process thaws as soon as the backup has begun and on every way out; a child thaws when
this process dies or when the time is up, even if libvirt does not answer us; and the journal has `sweep` thaw if both
were killed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vbackup.api import GuestError, Quiesce, VBackupError
from vbackup_libvirt import document
from vbackup_libvirt.connection import library, translated
from vbackup_libvirt.node import Machine


class Freeze:
    """How it went. ``note`` says why the guest was not frozen at the moment, empty when it was or was not to be."""

    def __init__(self) -> None:
        self.frozen = False
        self.note = ""

    def fail(self, quiesce: Quiesce, error: VBackupError) -> None:
        """Raise ``error``, or turn it into a note, as was asked."""
        self.frozen = False
        if quiesce is Quiesce.YES:
            raise error
        self.note = f"the guest was not frozen: {error.message}"


@contextmanager
def frozen(machine: Machine, quiesce: Quiesce) -> Iterator[Freeze]:
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
    with _guard(machine, quiesce, freeze):
        try:
            _freeze(machine)
            freeze.frozen = True
        except GuestError as error:
            thaw(machine)  # the agent may have frozen some of them, or be late
            freeze.fail(quiesce, error)
        try:
            yield freeze
        finally:
            if freeze.frozen:
                thaw(machine)


def _obstacle(machine: Machine) -> GuestError | None:
    libvirt = library()
    state = machine.ask("asking for its state", lambda domain: domain.state()[0])
    if state != libvirt.VIR_DOMAIN_RUNNING:
        return GuestError(f"{machine.name} is paused, so its guest cannot freeze its file systems")
    if not document.has_agent(machine.xml()):
        hint = "add a channel for org.qemu.guest_agent.0 and run qemu-guest-agent in the guest"
        return GuestError(f"{machine.name} has no channel for a guest agent", hint=hint)
    return None


def _freeze(machine: Machine) -> None:
    with (
        translated(f"{machine.name}: freezing the guest"),
        impatient(machine.domain, machine.node.options.agent_timeout) as agent,
    ):
        agent.fsFreeze()


def thaw(machine: Machine) -> None:
    """Thaw the guest, as often as you like; a guest that does not answer is left to itself."""
    with (
        suppress(GuestError),
        translated(f"{machine.name}: thawing the guest"),
        impatient(machine.domain, machine.node.options.agent_timeout) as agent,
    ):
        agent.fsThaw()


@contextmanager
def impatient(domain: Any, seconds: int) -> Iterator[Any]:
    """Have libvirt wait ``seconds`` for the agent's answer. Without limit is its default, which others may need."""
    domain.agentSetResponseTimeout(seconds, 0)
    try:
        yield domain
    finally:
        domain.agentSetResponseTimeout(library().VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, 0)


@contextmanager
def _guard(machine: Machine, quiesce: Quiesce, freeze: Freeze) -> Iterator[None]:
    """Have a child thaw the guest when we die or the time is up."""
    options = machine.node.options
    order = {
        "uri": options.uri,
        "uuid": machine.uuid,
        "seconds": options.freeze_timeout,
        "agent": options.agent_timeout,
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "vbackup_libvirt.thaw"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; the child follows when we are done
    )
    assert child.stdin is not None  # noqa: S101 - for the type checker
    assert child.stdout is not None  # noqa: S101
    try:
        print(json.dumps(order), file=child.stdin, flush=True)
        if child.stdout.readline() != "ready\n":
            raise GuestError(f"{machine.name}: the process that guards the freeze did not start")
        yield
        said, _ = child.communicate("done\n")
    finally:
        child.communicate()  # without "done" the child thaws: we could not, or do not know
    if freeze.frozen and said != "idle\n":
        seconds = options.freeze_timeout
        error = GuestError(f"{machine.name} was thawed after {seconds} s, before the backup had begun", transient=True)
        freeze.fail(quiesce, error)
