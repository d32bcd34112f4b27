"""The executor role: where the work runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """One machine's work in a job, or that of a whole group: plain values only, so that it can travel."""

    job: str
    hypervisor: str
    machine: str
    group: str = ""
    """The group whose machines are captured together; then the two above are empty. It takes one turn, and threads of
    its own for its machines."""


class Executor(Protocol):
    """Runs tasks and hands back their results as they come."""

    name: ClassVar[str]
    """The ``type:`` under ``executor:`` in YAML."""
    options: ClassVar[type[BaseModel]]
    """The other keys there."""

    def __init__(self, options: Any) -> None: ...

    def run(self, tasks: Sequence[Task], work: Callable[[Task], T], parallel: int) -> Iterator[tuple[Task, T]]:
        """Call ``work`` for each task, at most ``parallel`` at once, each once; yield as they finish.

        ``work`` does not raise: what went wrong is in its result. If it does all the same, that comes out of the
        iterator. Closing the iterator early (it has a ``close``) waits for what runs and starts nothing more; when it
        ends, in whatever way, no thread or process of the executor stays.
        """
