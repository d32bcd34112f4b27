"""What every plugin that listens to jobs must do. Subclass `EventsContract` and override the fixture ``plugin``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import pluggy
import pytest

from vbackup.api import DiskProgress, JobEvent, JobFinished, JobProgress, JobStarted
from vbackup.api.hooks import Hooks
from vbackup.testing.leftovers import nothing_changed, nothing_left_running

GIB = 1 << 30
POINT = "0123456789abcdef" * 2
HOOKS: dict[type[JobEvent], str] = {
    JobStarted: "vbackup_job_started",
    JobProgress: "vbackup_job_progress",
    JobFinished: "vbackup_job_finished",
}
"""Which hook gets which event."""
NAMES = ("web", "über & co", "a%sb{0}", "<b>x</b>", "-rf", "$(reboot)", "x" * 255)
"""Machines may be called all that."""
ERRORS = (
    "disk vda cannot be read (is the guest running?)",
    "two\nlines",
    '"quoted" \\ {braces} %d 100 %',
    "é" * 10_000,
)


class EventsContract:
    """The contract of the hooks ``vbackup_job_...``, as tests.

    The framework survives a plugin that breaks it, and complains once. Hooks are called one at a time, in a thread for
    the plugin alone. The backup waits for each, for 5 seconds at most: begin a thread, or send at the end.
    """

    @pytest.fixture
    def plugin(self) -> object:
        """Override: the module or object that the entry point names, ready as it is in use.

        What it talks to should be there, and another test should take it away: an error to reach it must not be raised.
        """
        raise NotImplementedError

    def test_listens(self, plugin: object) -> None:
        """It has hooks of jobs, all of the right names and arguments."""
        hooks = _registered(plugin)
        heard = {name for name in HOOKS.values() if getattr(hooks, name).get_hookimpls()}
        assert heard, "it has none of the hooks of jobs"
        assert heard == {name for name in HOOKS.values() if hasattr(plugin, name)}, "some lack `vbackup.api.hookimpl`"

    @pytest.mark.parametrize("machine", NAMES)
    def test_a_backup_that_goes_well(self, plugin: object, machine: str) -> None:
        """Its turn comes, its disks move on, it has a restore point: with warnings or without."""
        events = backup(machine, disk("vda", 40 * GIB), disk("vdb", 0), disk("memory", 1))
        _tell(plugin, [*events, done(machine)])
        _tell(plugin, [*events, replace(done(machine), warnings=("disk vdb was left out", "100 % \n {0}"))])

    @pytest.mark.parametrize("error", ERRORS, ids=["plain", "lines", "signs", "long"])
    def test_a_backup_that_fails(self, plugin: object, error: str) -> None:
        """Half-way, before the first byte, or before its turn had come: then it only ends."""
        failed = replace(done("web"), point="", error=error)
        events = backup("web", disk("vda", 40 * GIB))
        for before in (events[:-1], events[:1], []):
            _tell(plugin, [*before, failed])

    def test_a_backup_that_begins_again(self, plugin: object) -> None:
        """A capture that was lost is made once more: progress goes back."""
        _, *first = backup("web", disk("vda", 40 * GIB))[:-1]
        started, *second = backup("web", disk("vda", 41 * GIB))
        _tell(plugin, [started, *first, *second, done("web")])

    def test_a_run_that_is_interrupted(self, plugin: object) -> None:
        """One machine says so; of another one nothing more is heard, since its process died. The next run is as any."""
        events = backup("web", disk("vda", 40 * GIB))
        stopped = replace(done("web"), point="", error="web was not backed up: the run was stopped")
        _tell(plugin, [*events[:-1], *backup("db", disk("vda", GIB))[:-1], stopped])
        _tell(plugin, [*events, *backup("db", disk("vda", GIB)), done("web"), done("db")])

    def test_many_machines_at_once(self, plugin: object) -> None:
        """Events come from many threads: those of one machine in order, but its disks' side by side."""

        def run(number: int) -> Sequence[JobEvent]:
            machine = f"web-{number}"
            disks = [disk(f"vd{letter}", GIB) for letter in "abcd"]
            started, *progress = backup(machine, *disks)
            parts = [[each for each in progress if _key(each) == one.key] for one in disks]
            hooks(started)
            with ThreadPoolExecutor(len(disks)) as copying:
                list(copying.map(lambda part: [hooks(event) for event in part], parts))
            hooks(done(machine) if number % 3 else replace(done(machine), point="", error="it failed"))
            return (started, *progress)

        with nothing_left_running(), nothing_changed():
            hooks = _told(plugin)
            with ThreadPoolExecutor(8) as machines:
                list(machines.map(run, range(24)))

    def test_the_same_machine_name_elsewhere(self, plugin: object) -> None:
        """Machines of two hypervisors, or of two jobs, may share a name, and be under way at the same time."""
        one = [*backup("web", disk("vda", GIB)), done("web")]
        others = [[replace(event, **{field: "other"}) for event in one] for field in ("hypervisor", "job")]
        _tell(plugin, [event for events in zip(one, *others, strict=True) for event in events])


def disk(key: str, size: int) -> DiskProgress:
    """Return a disk of ``size`` bytes of which nothing is copied yet."""
    return DiskProgress(key, size, done=0, read=0, unchanged=0, zero=0, duplicate=0)


def backup(machine: str, *disks: DiskProgress) -> list[JobEvent]:
    """Return what is told of a machine before its end: its disks go on in turns. The last event completes the last."""
    where = ("nightly", "lab", machine)
    steps = [_at(each, percent) for percent in (0, 1, 50, 100) for each in disks]
    return [JobStarted(*where), *(JobProgress(*where, step) for step in steps)]


def done(machine: str) -> JobFinished:
    """Return the end of a backup that went well."""
    return JobFinished("nightly", "lab", machine, point=POINT)


def _at(disk: DiskProgress, percent: int) -> DiskProgress:
    at = disk.size * percent // 100
    return replace(disk, done=at, read=at // 2, unchanged=at - at // 2, zero=at // 4, duplicate=at // 8)


def _key(event: JobEvent) -> str:
    return event.disk.key if isinstance(event, JobProgress) else ""


def _registered(plugin: object) -> pluggy.HookRelay:
    manager = pluggy.PluginManager("vbackup")
    manager.add_hookspecs(Hooks)
    manager.register(plugin)
    manager.check_pending()
    return manager.hook


def _told(plugin: object) -> Callable[[JobEvent], None]:
    """Return what passes an event on as the framework does, and looks whether it has stayed as it was."""
    hooks = _registered(plugin)

    def tell(event: JobEvent) -> None:
        before = deepcopy(event)
        getattr(hooks, HOOKS[type(event)])(event=event)
        assert event == before, f"the event was changed: it was {before}"

    return tell


def _tell(plugin: object, events: Iterable[JobEvent]) -> None:
    with nothing_left_running(), nothing_changed():
        tell = _told(plugin)
        for event in events:
            tell(event)
