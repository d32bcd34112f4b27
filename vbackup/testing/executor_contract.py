"""What every executor must do. Subclass `ExecutorContract` in your plugin's tests and override ``executor``."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, cast

import pytest
from pydantic import BaseModel

from vbackup.api import Corrupt, Executor, Task
from vbackup.testing.leftovers import nothing_changed, nothing_left_running

_MOMENT = 0.02
"""Seconds that a task takes: long enough for another one to be begun too early."""


def tasks(count: int) -> list[Task]:
    """Return so many tasks, all different."""
    return [Task("nightly", "lab", f"machine-{number}") for number in range(count)]


class Running:
    """Counts what runs, from many threads."""

    def __init__(self) -> None:
        self.begun: Counter[Task] = Counter()
        self.now = self.most = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self, task: Task) -> Iterator[None]:
        """Be running for the time of the context."""
        with self._lock:
            self.begun[task] += 1
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self._lock:
                self.now -= 1


class ExecutorContract:
    """The contract of `vbackup.api.Executor`, as tests.

    What a job does needs the objects of its own process: ``work`` is called there, from whatever thread.
    """

    is_parallel = True
    """Whether as many tasks run at once as may; one that runs them one after another says no."""
    patience = 30.0
    """Seconds after which what has not happened will not."""

    @pytest.fixture
    def executor(self) -> Executor:
        """Override: an executor with the options under test."""
        raise NotImplementedError

    def test_says_what_it_is(self, executor: Executor) -> None:
        """A name, and options with defaults for all: jobs run on it without any."""
        assert executor.name
        assert issubclass(executor.options, BaseModel)
        assert executor.options()

    def test_no_tasks(self, executor: Executor) -> None:
        """Nothing to do is no error, and yields nothing."""
        assert list(executor.run([], _never, 4)) == []

    @pytest.mark.parametrize("parallel", [1, 3, 50])
    def test_each_task_runs_once(self, executor: Executor, parallel: int) -> None:
        """Each comes back, once, with what ``work`` returned for it, in whatever order."""
        given, running = tasks(20), Running()

        def work(task: Task) -> tuple[str, int]:
            with running.one(task):
                return task.machine, int(task.machine.rpartition("-")[2]) ** 2

        got = list(executor.run(given, work, parallel))
        assert len(got) == len(given)
        assert dict(got) == {task: (task.machine, number**2) for number, task in enumerate(given)}
        assert set(running.begun.values()) == {1}

    def test_tasks_and_results_are_passed_on_as_they_are(self, executor: Executor) -> None:
        """A group's task, no result, and an error that is a result: only who asked knows what they mean."""
        error = Corrupt("disk vda of web cannot be read")
        results: dict[Task, object] = {
            Task("nightly", "", "", "shop"): (error, error),
            Task("nightly", "lab", "über 1"): None,
            Task("nightly", "lab", "db"): error,
            Task("nightly", "vc", "db"): [],
        }
        got = list(executor.run(list(results), results.__getitem__, 2))
        assert len(got) == len(results)
        for task, result in got:
            assert result is results[task]

    @pytest.mark.parametrize("parallel", [1, 2, 5])
    def test_never_more_at_once_than_allowed(self, executor: Executor, parallel: int) -> None:
        """The limit is the user's: more would disturb guests, and the network."""
        running = Running()

        def work(task: Task) -> None:
            with running.one(task):
                _take(_MOMENT)

        assert len(list(executor.run(tasks(15), work, parallel))) == 15
        assert running.most <= parallel

    def test_as_many_at_once_as_allowed(self, executor: Executor) -> None:
        """What can run side by side does; see `is_parallel`."""
        if not self.is_parallel:
            return
        together = threading.Barrier(3)

        def work(task: Task) -> bool:
            del task
            try:
                together.wait(self.patience)
            except threading.BrokenBarrierError:
                return False
            return True

        assert all(met for _, met in executor.run(tasks(3), work, 3)), "three tasks that may run at once did not"

    def test_results_come_as_tasks_finish(self, executor: Executor) -> None:
        """Whoever waits for them can show them, and is not kept waiting by those that still run."""
        quick, slow = tasks(2)
        order = [slow, quick] if self.is_parallel else [quick, slow]
        quick_is_there = threading.Event()

        def work(task: Task) -> bool:
            return task == quick or quick_is_there.wait(self.patience)

        got: list[Task] = []
        for task, in_time in executor.run(order, work, 2):
            assert in_time, "the first result was kept back until the other task had finished"
            got.append(task)
            quick_is_there.set()
        assert got == [quick, slow]

    def test_closed_early(self, executor: Executor) -> None:
        """What runs is waited for, nothing more begins."""
        running, given = Running(), tasks(100)

        def work(task: Task) -> None:
            with running.one(task):
                _take(_MOMENT if task != given[0] else 0)

        with closing(_generator(executor, given, work, 2)) as results:
            next(results)
        begun = running.begun.total()
        assert running.now == 0, "closing did not wait for what was running"
        assert begun < len(given), "tasks were begun after closing"
        _take(3 * _MOMENT)
        assert running.begun.total() == begun, "tasks were begun after closing"

    def test_work_that_raises_after_all(self, executor: Executor) -> None:
        """It must not: but if it does, the error comes out, and no task is lost as if it had been done."""
        running, given = Running(), tasks(100)

        def work(task: Task) -> None:
            with running.one(task):
                if task == given[1]:
                    raise Corrupt("a mistake in the caller")
                _take(_MOMENT)

        with pytest.raises(Corrupt, match="a mistake in the caller"):
            list(executor.run(given, work, 2))
        assert running.now == 0, "something still runs after the error"
        assert running.begun.total() < len(given), "the others were begun after the error"

    def test_leaves_nothing(self, executor: Executor) -> None:
        """When a run is over, however it ended, no thread or process of it is left, and the process is as it was."""

        def work(task: Task) -> None:
            if task.machine == "machine-4":
                raise Corrupt("a mistake in the caller")

        with nothing_left_running(), nothing_changed():
            assert len(list(executor.run(tasks(4), work, 2))) == 4
            with closing(_generator(executor, tasks(4), work, 2)) as results:
                next(results)
            with pytest.raises(Corrupt):
                list(executor.run(tasks(8), work, 2))

    def test_runs_of_several_jobs_do_not_meet(self, executor: Executor) -> None:
        """One instance serves run after run, and several at once, each with its own tasks and its own limit."""

        def run(job: int) -> int:
            given, running = [Task(f"job-{job}", "lab", f"m{number}") for number in range(10)], Running()

            def work(task: Task) -> int:
                with running.one(task):
                    _take(_MOMENT / 4)
                    return job

            got = list(executor.run(given, work, 2))
            assert len(got) == len(given)
            assert dict(got) == dict.fromkeys(given, job)
            return running.most

        with ThreadPoolExecutor(4) as pool:
            assert max(pool.map(run, range(8))) <= 2


def _generator(executor: Executor, given: Sequence[Task], work: Callable[[Task], Any], parallel: int) -> Any:
    """Return the results, which can be closed."""
    results = executor.run(given, work, parallel)
    assert callable(getattr(results, "close", None)), "what `run` returns cannot be closed: make it a generator"
    return cast("Any", results)


def _never(task: Task) -> None:
    raise AssertionError(f"{task} was not given")


def _take(seconds: float) -> None:
    """Be at work for a while."""
    threading.Event().wait(seconds)
