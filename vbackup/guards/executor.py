"""The guard around an executor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import inf
from time import monotonic
from typing import Generic, TypeVar

from vbackup.api import Executor, PluginError, Task, VBackupError
from vbackup.engine.parallel import Gate
from vbackup.guards import watch
from vbackup.guards.blame import Blame, Calling

T = TypeVar("T")


def each_once(
    executor: Executor, tasks: Sequence[Task], work: Callable[[Task], T], parallel: int, blame: Blame
) -> Generator[tuple[Task, T], None, None]:
    """Like `Executor.run`, but results are those that ``work`` gave here, one for each task, and nothing runs on.

    Raises: when all that has run has been yielded, what the executor raised, by its name; `PluginError` for tasks that
    were never run, or for whatever else it does wrong.
    """
    runs = _Runs(work, blame)
    yielded: set[Task] = set()
    trouble: VBackupError | None = None
    try:
        try:
            for task in _wakes(executor, tuple(tasks), runs, parallel, blame):
                if task in runs.results and task not in yielded:
                    yielded.add(task)
                    yield task, runs.results[task]
        finally:
            runs.gate.shut()
            runs.gate.wait_until_empty()
    except VBackupError as error:
        trouble = error
    for task in tasks:
        if task in runs.results and task not in yielded:
            yield task, runs.results[task]
    left = sum(task not in runs.results for task in tasks)
    if left and trouble is None:
        trouble = blame.error(f"run ended, and {left} of {len(tasks)} tasks were never run")
    trouble = trouble or runs.trouble
    if trouble is not None:
        raise trouble


def _wakes(executor: Executor, tasks: Sequence[Task], work: _Runs[T], parallel: int, blame: Blame) -> Iterator[Task]:
    """Yield the tasks that the executor says are done."""
    watch.WATCH.begin(work.idle.call)
    try:
        pairs = _come_of(lambda: iter(executor.run(tasks, work, parallel)), blame)
        try:
            while (pair := _come_of(lambda: next(pairs, None), blame)) is not None:
                if not isinstance(pair, tuple) or len(pair) != 2 or pair[0] not in tasks:
                    raise blame.error("run gave something else than a task that it was given, and its result")
                with work.idle.interrupted():
                    yield pair[0]
        finally:
            close = getattr(pairs, "close", None)
            if close is not None:
                _come_of(close, blame)
    finally:
        watch.WATCH.end(work.idle.call)


def _come_of(action: Callable[[], T], blame: Blame) -> T:
    try:
        return action()
    except BaseException as error:
        settled = blame.settled("run", error)
        if isinstance(settled, VBackupError):
            settled = _named(settled, blame)
        if settled is error:
            raise
        raise settled from error


def _named(error: VBackupError, blame: Blame) -> VBackupError:
    """Return an error that says whose it is, and is of the same kind."""
    if error.message.startswith(f"plugin {blame.plugin!r}, "):
        return error
    message = blame.error(f"run raised {error.message}").message
    return type(error)(message, hint=error.hint or blame.hint, transient=error.transient)


class _Idle:
    """An executor while it runs nothing. What it runs may take as long as it likes: it is watched itself."""

    def __init__(self, call: Calling) -> None:
        self.call = call
        self._interruptions = 0
        self._lock = threading.Lock()

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """It is not, for the time of the context."""
        self._change(1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:
            self._interruptions += by
            self.call.since = inf if self._interruptions else monotonic()


class _Runs(Generic[T]):
    """Runs each task once, whoever asks for it how often, and remembers what came of it."""

    def __init__(self, work: Callable[[Task], T], blame: Blame) -> None:
        self.results: dict[Task, T] = {}
        self.gate = Gate()
        self.idle = _Idle(blame.working("run", "begun or ended a task"))
        self.trouble: PluginError | None = None
        self._work = work
        self._blame = blame
        self._begun: set[Task] = set()
        self._lock = threading.Lock()

    def __call__(self, task: Task) -> T:
        with self._lock:
            again = task in self._begun
            self._begun.add(task)
        if again:
            self.trouble = self._blame.error(f"run called the work of {task.machine or task.group} twice")
            raise self.trouble
        with self.idle.interrupted():
            for result in self.gate.through(partial(self._work, task)):
                self.results[task] = result
                return result
        raise self._blame.error("run went on after it was ended")
