"""The executor that runs tasks in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from vbackup.api import Executor, Options, Register, Task, hookimpl

T = TypeVar("T")


class InProcessOptions(Options):
    """There is nothing to set."""


class InProcess:
    """Threads: every heavy call drops the GIL."""

    name: ClassVar[str] = "inprocess"
    options: ClassVar[type[BaseModel]] = InProcessOptions

    def __init__(self, options: InProcessOptions) -> None:
        self._options = options

    def run(self, tasks: Sequence[Task], work: Callable[[Task], T], parallel: int) -> Iterator[tuple[Task, T]]:
        """See `vbackup.api.Executor.run`."""
        gate = _Gate()
        with ThreadPoolExecutor(max(1, parallel), thread_name_prefix="task") as pool:
            try:
                futures = {pool.submit(gate.through, work, task): task for task in tasks}
                for future in as_completed(futures):
                    for result in future.result():
                        yield futures[future], result
            finally:
                gate.shut()
                gate.wait_until_empty()


class _Gate:
    """Counts what runs. The pool alone would not do: a signal while it starts a thread makes it forget that thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._open = True

    def through(self, work: Callable[[Task], T], task: Task) -> tuple[T, ...]:
        """Call ``work`` and return its result, or nothing when the gate is shut."""
        with self._changed:
            if not self._open:
                return ()
            self._inside += 1
        try:
            return (work(task),)
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def shut(self) -> None:
        """Let nothing more begin."""
        with self._changed:
            self._open = False

    def wait_until_empty(self) -> None:
        """Wait for what has begun."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0)


@hookimpl
def vbackup_register_executors(register: Register[type[Executor]]) -> None:
    """Register the one of this module."""
    register(InProcess)
