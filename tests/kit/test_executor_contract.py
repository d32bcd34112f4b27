"""The executor that is built in keeps the contract that strangers get; and it finds what breaks it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import ClassVar

import pytest
from pydantic import ValidationError

from vbackup.api import Executor, Options
from vbackup.jobs.inprocess import InProcess, InProcessOptions
from vbackup.registry.roles import ROLES
from vbackup.testing import leftovers
from vbackup.testing.executor_contract import ExecutorContract

EXECUTORS = next(role for role in ROLES if role.protocol is Executor)


class TestInProcess(ExecutorContract):
    @pytest.fixture
    def executor(self):
        return InProcess(InProcessOptions())


class OneByOne:
    """The simplest one that is right."""

    name: ClassVar[str] = "one-by-one"
    options = Options

    def __init__(self, options=None):
        pass

    def run(self, tasks, work, parallel):
        for task in tasks:
            yield task, work(task)


def test_that_one_is_an_executor():
    """So are those below, which differ in one thing each."""
    EXECUTORS.check(OneByOne)


class TestOneByOne(ExecutorContract):
    is_parallel = False

    @pytest.fixture
    def executor(self):
        return OneByOne()


# -- what the contract finds --------------------------------------------------------------------------------------


class TooMany(OneByOne):
    def run(self, tasks, work, parallel):
        yield from InProcess(InProcessOptions()).run(tasks, work, parallel + 1)


class Swallows(OneByOne):
    """A task that raises is done, with nothing to show for it."""

    def run(self, tasks, work, parallel):
        for task in tasks:
            try:
                yield task, work(task)
            except Exception:  # noqa: BLE001 - that is what it is about
                continue


class Forgets(OneByOne):
    def run(self, tasks, work, parallel):
        yield from super().run(tasks[:-1], work, parallel)


class Twice(OneByOne):
    def run(self, tasks, work, parallel):
        for task in tasks:
            work(task)
        yield from super().run(tasks, work, parallel)


class Mixes(OneByOne):
    """Pairs results with tasks by their place, as they finish."""

    def run(self, tasks, work, parallel):
        with ThreadPoolExecutor(parallel) as pool:
            futures = [pool.submit(work, task) for task in reversed(tasks)]
            yield from zip(tasks, [future.result() for future in futures], strict=True)


class InOrder(OneByOne):
    """A result waits for those of all tasks before."""

    def run(self, tasks, work, parallel):
        with ThreadPoolExecutor(parallel) as pool:
            yield from zip(tasks, pool.map(work, tasks), strict=True)


class GoesOn(OneByOne):
    """Closed early, or after an error, it does all the same what was to be done."""

    def run(self, tasks, work, parallel):
        with ThreadPoolExecutor(parallel) as pool:
            futures = {pool.submit(work, task): task for task in tasks}
            for future in as_completed(futures):
                yield futures[future], future.result()


class DoesNotWait(OneByOne):
    def run(self, tasks, work, parallel):
        pool = ThreadPoolExecutor(parallel)
        futures = {pool.submit(work, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class List(OneByOne):
    def run(self, tasks, work, parallel):
        return iter(list(super().run(tasks, work, parallel)))


class Leaks(OneByOne):
    over = threading.Event()

    def run(self, tasks, work, parallel):
        threading.Thread(target=self.over.wait, name="keeper").start()
        yield from super().run(tasks, work, parallel)


class LeaksProcess(OneByOne):
    def run(self, tasks, work, parallel):
        multiprocessing.get_context("spawn").Process(target=signal.pause, daemon=True).start()
        yield from super().run(tasks, work, parallel)


class Sets(OneByOne):
    def run(self, tasks, work, parallel):
        os.environ["MY_EXECUTOR"] = "on"
        yield from super().run(tasks, work, parallel)


class Remembers(OneByOne):
    """Keeps what it runs in itself."""

    def run(self, tasks, work, parallel):
        self.tasks = list(tasks)
        while self.tasks:
            task = self.tasks.pop()
            yield task, work(task)


class NeedsOptions(OneByOne):
    class Needed(Options):
        host: str

    options = Needed


BROKEN = [
    (TooMany, "test_never_more_at_once_than_allowed", (2,)),
    (Swallows, "test_work_that_raises_after_all", ()),
    (Forgets, "test_each_task_runs_once", (1,)),
    (Twice, "test_each_task_runs_once", (1,)),
    (Mixes, "test_each_task_runs_once", (3,)),
    (InOrder, "test_results_come_as_tasks_finish", ()),
    (OneByOne, "test_as_many_at_once_as_allowed", ()),
    (GoesOn, "test_closed_early", ()),
    (GoesOn, "test_work_that_raises_after_all", ()),
    (DoesNotWait, "test_closed_early", ()),
    (DoesNotWait, "test_work_that_raises_after_all", ()),
    (List, "test_results_come_as_tasks_finish", ()),
    (List, "test_closed_early", ()),
    (Leaks, "test_leaves_nothing", ()),
    (LeaksProcess, "test_leaves_nothing", ()),
    (Sets, "test_leaves_nothing", ()),
    (Remembers, "test_runs_of_several_jobs_do_not_meet", ()),
    (NeedsOptions, "test_says_what_it_is", ()),
]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(leftovers, "_PATIENCE", 0.2)
    monkeypatch.setattr(ExecutorContract, "patience", 0.5)
    Leaks.over.clear()
    yield
    Leaks.over.set()
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    os.environ.pop("MY_EXECUTOR", None)


@pytest.mark.parametrize(("cls", "test", "arguments"), BROKEN, ids=[f"{b[0].__name__}-{b[1]}" for b in BROKEN])
def test_executors_that_break_the_contract_are_found(impatient, cls, test, arguments):
    with pytest.raises((AssertionError, pytest.fail.Exception, IndexError, ValidationError)):
        getattr(ExecutorContract(), test)(cls(), *arguments)
