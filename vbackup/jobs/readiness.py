"""Waiting until a machine that was started does its work, so that those that need it find it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from vbackup.api import Hypervisor, Interrupted, Unavailable
from vbackup.config.groups import Address, Ready

PAUSE = 1.0
"""Seconds between two looks."""
_CONNECT_SECONDS = 2.0


@dataclass(frozen=True)
class Waiting:
    """The wait for one machine, called ``name`` on its hypervisor."""

    hypervisor: Hypervisor
    name: str
    stop: threading.Event

    def until(self, ready: Ready) -> None:
        """Wait for all that ``ready`` states.

        Raises: `Unavailable` when it is not so in time; what `Hypervisor.answers` raises; `Interrupted`.
        """
        deadline = time.monotonic() + ready.within
        if ready.agent:
            self._poll("its agent", self._answers, deadline, ready.within)
        if ready.tcp is not None:
            address = ready.tcp
            where = f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"
            self._poll(where, lambda: _connects(address), deadline, ready.within)
        if ready.delay is not None:
            self._pause(ready.delay)

    def _poll(self, what: str, look: Callable[[], str], deadline: float, within: float) -> None:
        while problem := look():
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(
                    f"{self.name} is not ready after {within:g} s: {what} does not answer ({problem})",
                    transient=False,
                )
            self._pause(min(PAUSE, left))

    def _answers(self) -> str:
        """Return why the agent does not answer; nothing when it does."""
        try:
            return "" if self.hypervisor.answers(self.name) else "not yet"
        except Unavailable as error:  # the hypervisor; it may be there again in time
            return error.message

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Interrupted(f"the wait for {self.name} was stopped")


def _connects(address: Address) -> str:
    """Return why nothing takes connections there; nothing when something does."""
    try:
        with socket.create_connection(address, timeout=_CONNECT_SECONDS):
            return ""
    except OSError as error:  # also a name that is not known yet, and a timeout
        return error.strerror or str(error) or type(error).__name__
