"""Freezing the guest's file systems for the moment of a capture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vbackup.api import GuestError, Quiesce
from vbackup_qmp import agent
from vbackup_qmp.inventory import OFF

RUNNING = "running"


@contextmanager
def frozen(
    name: str, path: Path | None, state: str, quiesce: Quiesce, notes: list[str], mark: Callable[[Path | None], None]
) -> Iterator[bool]:
    """Freeze a machine by the agent at ``path``, as far as that is asked for and can be; yields whether it is frozen.

    ``mark`` is called before it is frozen, with the agent, and when it is thawed, with None. What could not be done
    is added to ``notes``. Raises: `GuestError`, with `Quiesce.YES`, and when it cannot be thawed.
    """
    if state == OFF or quiesce is Quiesce.NO:
        yield state == OFF
        return
    try:
        ready = _ready(path, state)
    except GuestError as error:
        _complain(name, quiesce, notes, error)
        yield False
        return
    mark(ready)
    try:
        yield _freeze(name, ready, quiesce, notes)
    finally:
        agent.thaw(ready, name)  # also after a failure: it may be frozen in part
        mark(None)


def _ready(path: Path | None, state: str) -> Path:
    if path is None:
        raise GuestError("it has no `agent` in the configuration")
    if state != RUNNING:
        raise GuestError(f"the machine is {state}")
    agent.ping(path, "the guest")
    return path


def _freeze(name: str, path: Path, quiesce: Quiesce, notes: list[str]) -> bool:
    try:
        return agent.freeze(path, "the guest") > 0
    except GuestError as error:
        _complain(name, quiesce, notes, error)
        return False


def _complain(name: str, quiesce: Quiesce, notes: list[str], error: GuestError) -> None:
    message = f"{name}: its file systems were not frozen: {error.message}"
    if quiesce is Quiesce.YES:
        raise GuestError(message) from error
    notes.append(message)
