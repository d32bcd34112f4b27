"""Threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import ClassVar, TypeVar

from pydantic import BaseModel, Field

from vbackup.api import Options, Task

T = TypeVar("T")


class QueueOptions(Options):
    """Options of ``type: queue``."""

    most: int = Field(default=64, ge=1, le=1024, description="tasks at once, whatever a job says")


class QueueExecutor:
    """A pool of threads."""

    name: ClassVar[str] = "queue"
    options: ClassVar[type[BaseModel]] = QueueOptions

    def __init__(self, options: QueueOptions) -> None:
        self._options = options

    def run(self, tasks: Sequence[Task], work: Callable[[Task], T], parallel: int) -> Iterator[tuple[Task, T]]:
        """Whoever is not begun when it is closed is cancelled; leaving the pool waits for the others."""
        with ThreadPoolExecutor(min(parallel, self._options.most)) as pool:
            futures = {pool.submit(work, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                for future in futures:
                    future.cancel()
