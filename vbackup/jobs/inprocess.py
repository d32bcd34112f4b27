"""The executor that runs tasks in threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import ClassVar, TypeVar

from pydantic import BaseModel

from vbackup.api import Executor, Options, Register, Task, hookimpl
from vbackup.engine.parallel import Gate

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
        gate = Gate()
        with ThreadPoolExecutor(max(1, parallel), thread_name_prefix="task") as pool:
            try:
                futures = {pool.submit(gate.through, partial(work, task)): task for task in tasks}
                for future in as_completed(futures):
                    for result in future.result():
                        yield futures[future], result
            finally:
                gate.shut()
                gate.wait_until_empty()


@hookimpl
def vbackup_register_executors(register: Register[type[Executor]]) -> None:
    """Register the one of this module."""
    register(InProcess)
