"""Targets and executors that raise, lie, and give something else than they should."""

from __future__ import annotations

import pytest

from tests.hostile.conftest import Fault, Place, faults

WRITING = [fault for fault in faults("targets") if not fault.name.startswith("Reads")]
READING = [fault for fault in faults("targets") if fault.name.startswith("Reads")]


@pytest.mark.parametrize("fault", WRITING, ids=str)
def test_what_a_target_does_wrong_in_a_run_is_told_with_its_name(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    outcome = place.vbackup("run")
    assert fault.told in outcome.err, outcome.err
    assert "plugin 'wild'" in outcome.err
    assert outcome.code == fault.ends
    place.calm()
    assert len(place.points()) == 1
    place.prove()


@pytest.mark.parametrize("fault", READING, ids=str)
def test_what_a_target_gives_back_is_looked_at(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    place.refused("restore", "web@latest", "--as", "again", by=f"plugin 'wild', target main (type wild): {fault.told}")
    place.prove()


def test_a_target_that_fails_hides_no_other(place: Place) -> None:
    place.wild("targets", "Shelf", "def points(self): raise RuntimeError('no')")
    place.config["targets"]["second"] = {**place.config["targets"]["main"], "type": "repository"}
    outcome = place.vbackup("list")
    assert outcome.code == 0
    assert "web" in outcome.out
    place.prove()


@pytest.mark.parametrize("method", ["verify", "check", "prune", "protected", "delete"])
def test_each_method_of_a_target_is_guarded(place: Place, method: str) -> None:
    place.wild("targets", "Shelf", f"def {method}(self, *of): raise RuntimeError('no')")
    point = next(iter(place.old))
    args = {"protected": ("prune",), "delete": ("delete", point)}.get(method, (method,))
    place.refused(*args, by=f"plugin 'wild', target main (type wild): {method} raised RuntimeError: no")
    place.prove()


@pytest.mark.parametrize("fault", faults("executors"), ids=str)
def test_what_an_executor_does_wrong_is_told_with_its_name(place: Place, fault: Fault) -> None:
    place.let_loose(fault)
    place.refused("run", by=f"plugin 'wild', executor wild: {fault.told}")
    place.prove()


def test_work_that_an_executor_repeats_is_done_once(place: Place) -> None:
    body = """
    def run(self, tasks, work, parallel):
        for task in tasks:
            yield task, work(task)
            yield task, work(task)
    """
    place.wild("executors", "Threads", body)
    outcome = place.vbackup("run")
    assert "plugin 'wild', executor wild: run called the work of web twice" in outcome.err
    assert outcome.code == 3  # the point is good
    place.calm()
    assert len(place.points()) == 2
    place.prove()


def test_work_that_an_executor_leaves_running_is_waited_for(place: Place) -> None:
    body = """
    def run(self, tasks, work, parallel):
        began = threading.Event()
        def late(task):
            began.set()
            work(task)


        threads = [threading.Thread(target=late, args=(task,)) for task in tasks]
        for thread in threads: thread.start()
        began.wait()
        while not work.gate._inside and not work.results: pass
        return iter([])
    """
    place.wild("executors", "Threads", body)
    assert place.vbackup("run").code in (0, 3)
    place.calm()
    assert len(place.points()) == 2
    place.prove()
