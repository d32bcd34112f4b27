"""Plugins that hang, leave threads behind, or fail at the end."""

from __future__ import annotations

import json
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from tests.hostile.conftest import Fault, Place, faults, released_by
from tests.hostile.processes import ended, started
from vbackup.api import Block, Corrupt, Interrupted, PluginError, Range, Task, Unavailable, VBackupError
from vbackup.guards import closing, watch
from vbackup.guards.blame import Blame
from vbackup.guards.executor import each_once
from vbackup.guards.streams import as_asked
from vbackup.registry import Registry
from vbackup.testing.hypervisors import FakeDisk, FakeMachine

BLAME = Blame("wild", "stranger_wild", builtin=False, what="hypervisor lab")


@pytest.mark.parametrize("role", ["hypervisors", "transports", "targets"])
@pytest.mark.parametrize("statement", ["raise RuntimeError('no')", "raise SystemExit(0)", "raise KeyboardInterrupt"])
def test_what_close_raises_is_told_and_the_work_counts(place: Place, role: str, statement: str) -> None:
    base = {"hypervisors": "Lab", "transports": "Disk", "targets": "Shelf"}[role]
    place.wild(role, base, f"def close(self): {statement}")
    outcome = place.vbackup("run")
    assert outcome.code in (0, 3)
    assert f": close raised {statement.partition(' ')[2].partition('(')[0]}" in outcome.err
    assert "plugin 'wild', " in outcome.err
    place.prove()


@pytest.mark.parametrize("role", ["hypervisors", "transports", "targets"])
def test_a_close_that_hangs_is_left_alone(place: Place, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    monkeypatch.setattr(closing, "PATIENCE", 0.2)
    base = {"hypervisors": "Lab", "transports": "Disk", "targets": "Shelf"}[role]
    place.wild(role, base, "def close(self): GO.wait()")
    try:
        outcome = place.vbackup("run")
    finally:
        sys.modules["stranger_tame"].GO.set()
    assert outcome.code in (0, 3)
    assert "close has not returned for 0.2 s, and is left alone" in outcome.err
    place.prove()


COMMANDS = {
    "SinkWrite": ("restore", "web@latest", "--to", "lab", "--as", "again"),
    "Verify": ("verify",),
    "Check": ("check",),
    "Prune": ("prune",),
}


@pytest.mark.parametrize("fault", faults("hanging"), ids=str)
def test_a_call_that_takes_long_is_told_with_its_plugin(
    place: Place, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Nothing can end it: but who waits knows for whom, and what to do."""
    monkeypatch.setattr(watch, "PATIENCE", 0.2)
    monkeypatch.setattr(watch, "SILENT_PATIENCE", 0.2)
    monkeypatch.setattr(watch, "_LOOK", 0.02)
    monkeypatch.setattr(watch, "WATCH", watch.Watch())
    place.let_loose(fault)
    with released_by("plugin 'wild', "):
        outcome = place.vbackup(*COMMANDS.get(fault.name, ("run",)))
    line = next(line for line in outcome.err.splitlines() if "plugin 'wild', " in line)
    assert f": {fault.told}" in line
    assert " has not " in line
    assert "(if it hangs: update or remove stranger_wild, or run without it: VBACKUP_DISABLED_PLUGINS=wild)" in line
    assert outcome.code in (0, 3)
    sys.modules["stranger_tame"].GUESTS.pop("again", None)
    if fault.role != "codecs":  # without it nobody reads what it has encoded well
        place.prove()


def test_work_is_no_silence_of_its_executor() -> None:
    class InTurn:
        def run(self, tasks: tuple[Task, ...], work: Callable[[Task], object], parallel: int) -> Iterator[object]:
            assert any("run (" in call for call in watch.WATCH.under_way())
            for task in tasks:
                yield task, work(task)

    def work(task: Task) -> str:
        return ", ".join(watch.WATCH.under_way()) or f"nobody waits for {task.machine}"

    tasks = [Task("nightly", "lab", name) for name in ("db", "web")]
    results = dict(each_once(InTurn(), tasks, work, 1, BLAME))  # type: ignore[arg-type]
    assert list(results.values()) == ["nobody waits for db", "nobody waits for web"]
    assert not watch.WATCH.under_way()


@pytest.mark.parametrize("error", [Unavailable, Interrupted, PluginError, Corrupt])
@pytest.mark.parametrize("runs", [1, 2])
def test_what_an_executor_has_run_counts_whatever_it_raises_then(error: type[VBackupError], runs: int) -> None:
    class Leaves:
        def run(self, tasks: tuple[Task, ...], work: Callable[[Task], object], parallel: int) -> Iterator[object]:
            results = [(task, work(task)) for task in tasks[:runs]]
            yield results[0]
            raise error("worker host h2 went away", hint="start it", transient=True)

    tasks = [Task("nightly", "lab", name) for name in ("web", "db")]
    results = each_once(Leaves(), tasks, lambda task: task.machine, 1, BLAME)  # type: ignore[arg-type]
    seen: list[str] = []
    with pytest.raises(error) as caught:
        seen.extend(machine for _, machine in results)
    assert seen == ["web", "db"][:runs]
    assert type(caught.value) is error
    assert caught.value.message == "plugin 'wild', hypervisor lab: run raised worker host h2 went away"
    assert (caught.value.hint, caught.value.transient) == ("start it", True)
    assert caught.value.__cause__ is not None


def test_points_stay_in_the_report_when_their_executor_fails(place: Place) -> None:
    body = """
    def run(self, tasks, work, parallel):
        results = [(task, work(task)) for task in tasks]
        yield results[0]
        raise Unavailable("worker host h2 went away")
    """
    sys.modules["stranger_tame"].GUESTS["db"] = FakeMachine({"vda": FakeDisk(bytearray(b"db" * 1000))})
    place.wild("executors", "Threads", body)
    outcome = place.vbackup("run", "--json")
    machines = {each["machine"]: each for each in json.loads(outcome.out.splitlines()[-1])["machines"]}
    assert outcome.code == 3, outcome.err
    for name in ("db", "web"):
        assert machines[name]["point"]
        assert "plugin 'wild', executor wild: run raised worker host h2 went away" in str(machines[name]["warnings"])
    del sys.modules["stranger_tame"].GUESTS["db"]
    place.prove()


GUEST = """
from vbackup.testing.hypervisors import FakeDisk, FakeMachine
GUESTS.setdefault("web", FakeMachine({"vda": FakeDisk(bytearray(b"new" * 100000))}))
"""


def test_threads_that_are_left_are_named_and_the_process_ends(place: Place) -> None:
    body = """
    def machines(self):
        threading.Thread(target=forever, name="poller").start()
        return [MachineRef("web", "id-web", running=True)]
    """
    place.wild("hypervisors", "Lab", body)
    path = place.sites / "wild" / "stranger_wild.py"
    path.write_text(path.read_text() + "\ndef forever():\n    threading.Event().wait()\n")
    code, err = ended(place, "run")
    assert "plugin 'wild' of stranger_wild left a thread running (poller); the process ends without it" in err
    assert "error: lab:web: there is no machine web" in err  # its guests are of another process
    assert code == 1
    place.prove()


def test_who_stops_a_run_twice_is_told_whom_it_waits_for(place: Place) -> None:
    body = """
    @contextmanager
    def capture(self, machine, request):
        os.write(2, b"in the capture\\n")
        GO.wait()
        yield
    """
    place.wild("hypervisors", "Lab", body)
    path = place.sites / "wild" / "stranger_wild.py"
    path.write_text(path.read_text() + GUEST)
    with started(place, "run") as process:
        lines = iter(process.stderr or ())
        assert any("in the capture" in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert any("stopping; undoing what was begun" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert any("waiting for plugin 'wild', hypervisor lab (type wild): capture of web (" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert "vbackup: ended at once\n" in lines
        assert process.wait(100) == 143
    place.prove()


def test_signals_of_a_process_of_a_plugin_are_not_ours(place: Place) -> None:
    body = """
    def machines(self):
        import signal
        child = os.fork()
        if not child:
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        raise RuntimeError("done")
    """
    place.wild("hypervisors", "Lab", body)
    code, err = ended(place, "run")
    assert "machines raised RuntimeError: done" in err
    assert "stopping" not in err
    assert code == 1
    place.prove()


SWALLOWS = """
def machines(self):
    while True:
        try:
            os.write(2, b"waiting\\n")
            GO.wait()
        except BaseException:
            continue
"""
NEVER_COMES_BACK = """
def machines(self):
    import ctypes
    mutex, lock = ctypes.create_string_buffer(128), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    while True:
        try:
            os.write(2, b"waiting\\n")
            lock(mutex)
        except BaseException:  # the signal was quicker
            continue
"""


@pytest.mark.parametrize("body", [SWALLOWS, NEVER_COMES_BACK])
def test_the_third_signal_ends_what_no_other_does(place: Place, body: str) -> None:
    """Python's own handlers would wait for the main thread, which is in the plugin."""
    place.wild("hypervisors", "Lab", body)
    with started(place, "run") as process:
        lines = iter(process.stderr or ())
        assert "waiting\n" in lines
        process.send_signal(signal.SIGINT)
        assert "vbackup: stopping; undoing what was begun\n" in lines
        process.send_signal(signal.SIGINT)
        assert any("waiting for plugin 'wild', hypervisor lab (type wild): machines (" in line for line in lines)
        assert "vbackup: one more signal ends it at once; the next run then undoes what is left\n" in lines
        process.send_signal(signal.SIGINT)
        assert "vbackup: ended at once\n" in lines
        assert process.wait(100) == 130
    place.prove()


def test_a_command_that_went_on_though_it_was_stopped_says_so(place: Place) -> None:
    body = """
    def verify(self, points, progress):
        try:
            os.write(2, b"waiting\\n")
            GO.wait()
        except BaseException:
            return super().verify(points, progress)
    """
    place.wild("targets", "Shelf", body)
    with started(place, "verify") as process:
        lines = iter(process.stderr or ())
        assert "waiting\n" in lines
        process.send_signal(signal.SIGTERM)
        assert "vbackup: error: stopped by SIGTERM\n" in lines
        assert process.wait(100) == 143
    place.prove()


@pytest.mark.parametrize("ends", [0, 7])
def test_a_plugin_that_ends_the_process_leaves_the_repository_whole(place: Place, ends: int) -> None:
    """Nothing can catch that; what was not committed was never there."""
    body = f"""
    def put(self, key, data, *, if_absent=False):
        if key.startswith("packs"):
            os._exit({ends})
        super().put(key, data, if_absent=if_absent)
    """
    place.wild("transports", "Disk", body)
    path = place.sites / "wild" / "stranger_wild.py"
    path.write_text(path.read_text() + GUEST)
    assert ended(place, "run")[0] == ends
    place.prove()


def test_ranges_are_for_who_reads_and_not_for_its_threads() -> None:
    lent: deque[object] = deque()

    def read(ranges: object) -> object:
        lent.append(ranges)
        for offset, length in ranges:  # type: ignore[attr-defined]
            yield Block(offset, bytes(length))

    ranges = [Range(at, 512) for at in range(0, 4096, 512)]
    blocks = as_asked(read, ranges, "disk vda", BLAME)  # type: ignore[arg-type]
    assert next(blocks) == Block(0, bytes(512))
    with pytest.raises(PluginError, match="asked for ranges while it was not asked for blocks"):
        next(lent[0])  # type: ignore[call-overload]
    assert len(list(blocks)) == 7


def test_what_we_raise_ourselves_passes_through_a_plugin() -> None:
    def ranges() -> object:
        yield Range(0, 512)
        raise LookupError("ours")

    def swallows(ranges: object) -> object:
        try:
            for offset, length in ranges:  # type: ignore[attr-defined]
                yield Block(offset, bytes(length))
        except LookupError:
            return

    with pytest.raises(LookupError, match="ours"):
        list(as_asked(swallows, ranges(), "disk vda", BLAME))  # type: ignore[arg-type]
    with pytest.raises(Interrupted, match="stopped"), BLAME.calling("machines"):
        raise Interrupted("stopped")


LIBRARY = """
import json
from vbackup.api import hookimpl
def read():
    json.loads("{")
@hookimpl
def vbackup_job_started(event):
    read()
"""


def test_a_fault_of_a_library_is_blamed_on_the_plugin_that_called_it(place: Place) -> None:
    place.install("wild", LIBRARY)
    registry = Registry.load()
    try:
        sys.modules["stranger_wild"].read()
    except ValueError as error:
        told = registry.explained(error, "web")
    assert isinstance(told, PluginError)
    assert told.message.startswith("plugin 'wild', its code: raised JSONDecodeError: ")
    assert registry.explained(ValueError("no"), "web").message == "web: unexpected ValueError: no"
