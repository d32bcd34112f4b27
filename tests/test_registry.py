"""Plugins are found through real entry points; a broken one is named and left out, the rest goes on."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import vbackup_zstd
from vbackup.api import (
    DiskProgress,
    JobFinished,
    JobProgress,
    JobStarted,
    Options,
    PluginError,
    Task,
    hookimpl,
)
from vbackup.engine import parallel
from vbackup.jobs.inprocess import InProcess
from vbackup.registry import PluginInfo, Registry

Install = Callable[..., None]

CODEC = """
    from typing import ClassVar
    from vbackup.api import Options, hookimpl

    class Rot13:
        name = "rot13"
        options = Options
        encrypts = False
        def __init__(self, options): ...
        def encode(self, data, context): ...
        def decode(self, data, context, max_size): ...

    @hookimpl
    def vbackup_register_codecs(register):
        register(Rot13)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one plugin module, as pip would leave it on the path."""
    made: list[str] = []

    def install(name: str, source: str, *, dist: str = "", value: str = "") -> None:
        module = f"stranger_{name}"
        made.append(module)
        site = tmp_path / name
        info = site / f"{dist or module}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist or module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[vbackup]\n{name} = {value or module}\n")
        monkeypatch.syspath_prepend(str(site))

    yield install
    for module in made:
        sys.modules.pop(module, None)


def plugin(registry: Registry, name: str) -> PluginInfo:
    return next(plugin for plugin in registry.plugins if plugin.name == name)


def test_built_in_plugins_load_the_way_strangers_do() -> None:
    registry = Registry.load()
    assert {"zstd", "aes-256-gcm"} <= registry.codecs.keys()
    assert "local" in registry.transports
    assert "repository" in registry.targets
    assert registry.executors["inprocess"] is InProcess
    info = plugin(registry, "zstd")
    assert (info.origin, info.builtin, info.status) == ("vbackup", True, "ok")
    assert info.roles == {"codecs": ["zstd"]}


def test_a_strangers_plugin_is_listed_with_its_origin_and_works(install: Install) -> None:
    install("rot13", CODEC)
    registry = Registry.load()
    assert registry.codecs["rot13"].__name__ == "Rot13"
    assert plugin(registry, "rot13") == PluginInfo(
        "rot13",
        "stranger_rot13",
        "1.2",
        builtin=False,
        roles={"codecs": ["rot13"]},
        module="stranger_rot13",
        hooks=("vbackup_register_codecs",),
    )


BROKEN = {
    "import error": ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    "exit while importing": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "error while importing": ("1 / 0", "ZeroDivisionError"),
    "syntax error": ("def", "SyntaxError"),
    "no hook at all": ("x = 1", "it implements no hook"),
    "other API version": ("VBACKUP_API_VERSION = 99\n" + dedent(CODEC), "made for API version 99; this is 1"),
    "unknown hook": (
        "from vbackup.api import hookimpl\n@hookimpl\ndef vbackup_register_codec(register): ...",
        "there is no hook vbackup_register_codec; did you mean vbackup_register_codecs?",
    ),
    "unknown argument": (
        "from vbackup.api import hookimpl\n@hookimpl\ndef vbackup_register_codecs(register, colour): ...",
        "colour",
    ),
    "unmarked hook": (
        dedent(CODEC) + "\ndef vbackup_job_started(event): ...",
        "vbackup_job_started is not marked with vbackup.api.hookimpl",
    ),
    "hook raises": (
        "from vbackup.api import hookimpl\n@hookimpl\ndef vbackup_register_codecs(register): 1 / 0",
        "vbackup_register_codecs raised ZeroDivisionError",
    ),
    "class without a name": (dedent(CODEC).replace('name = "rot13"', ""), "class Rot13 has no usable `name`"),
    "class with a bad name": (dedent(CODEC).replace('"rot13"', '"Rot 13"'), "class Rot13 has no usable `name`"),
    "class without options": (dedent(CODEC).replace("options = Options", ""), "class Rot13 has no `options`"),
    "class without a method": (dedent(CODEC).replace("def decode", "def unpack"), "it lacks decode"),
    "not a class": (dedent(CODEC).replace("register(Rot13)", "register(3)"), "must register classes, not int"),
    "two of one name": (
        dedent(CODEC).replace("register(Rot13)", "register(Rot13); register(Rot13)"),
        "it registers two codecs named 'rot13'",
    ),
    "option named type": (
        dedent(CODEC).replace(
            "options = Options", "options = type('O', (Options,), {'__annotations__': {'type': str}})"
        ),
        "use a key that is vbackup's own: type",
    ),
    "takes a built-in's name": (
        dedent(CODEC).replace('"rot13"', '"zstd"'),
        "codecs 'zstd' of plugin 'bad' is already that of plugin 'zstd'",
    ),
}


@pytest.mark.parametrize(("source", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_named_and_left_out(
    install: Install, caplog: pytest.LogCaptureFixture, source: str, message: str
) -> None:
    install("bad", source)
    install("rot13", CODEC)
    registry = Registry.load()
    info = plugin(registry, "bad")
    assert info.status == "broken"
    assert message in info.error
    assert info.roles == {}
    assert "plugin 'bad' of stranger_bad is left out" in caplog.text
    assert plugin(registry, "rot13").status == "ok"
    assert registry.codecs["zstd"].__module__.startswith("vbackup_zstd")


def test_nothing_of_a_half_good_plugin_counts(install: Install) -> None:
    half = dedent(CODEC) + dedent("""
        @hookimpl
        def vbackup_register_transports(register):
            raise RuntimeError("later")
    """)
    install("half", half)
    registry = Registry.load()
    assert plugin(registry, "half").status == "broken"
    assert "rot13" not in registry.codecs


def test_a_missing_attribute_of_the_entry_point_is_an_import_error(install: Install) -> None:
    install("bad", CODEC, value="stranger_bad:nothing")
    assert "stranger_bad:nothing cannot be imported: AttributeError" in plugin(Registry.load(), "bad").error


def test_two_strangers_with_one_plugin_name(install: Install) -> None:
    install("zstd", CODEC)
    strangers = [info for info in Registry.load().plugins if info.name == "zstd"]
    assert [(info.builtin, info.status) for info in strangers] == [(True, "ok"), (False, "broken")]
    assert strangers[1].error == "there is another plugin named 'zstd': remove one of the two"


def test_a_broken_built_in_is_an_error_that_says_how_to_go_on(install: Install) -> None:
    install("abroken", "1 / 0", dist="vbackup")
    with pytest.raises(PluginError, match="the built-in plugin 'abroken' is broken") as caught:
        Registry.load()
    assert "VBACKUP_DISABLED_PLUGINS=abroken" in caught.value.hint
    assert plugin(Registry.load(disabled=["abroken"]), "abroken").status == "disabled"


SAYS = 'VBACKUP_BRINGS = {"codecs": ["rot13"]}'


def test_a_built_in_that_says_what_it_brings_waits_until_that_is_wanted(install: Install) -> None:
    asked = dedent(CODEC).replace("    register(Rot13)", "    asked.append(1); register(Rot13)")
    install("waits", f"asked = []\n{SAYS}\n{asked}", dist="vbackup")
    registry = Registry.load()
    assert "rot13" in registry.codecs
    assert list(registry.codecs) == ["rot13"]
    assert len(registry.codecs) == 1
    assert sys.modules["stranger_waits"].asked == []
    assert registry.codecs["rot13"].__name__ == "Rot13"
    assert plugin(registry, "waits").roles == {"codecs": ["rot13"]}
    assert sys.modules["stranger_waits"].asked == [1]


RAISES = dedent(CODEC).replace("    register(Rot13)", "    1 / 0")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (f"{SAYS}\n{RAISES}", "vbackup_register_codecs raised ZeroDivisionError"),
        (dedent(CODEC) + SAYS.replace("]", ', "rot26"]'), "it brings .*rot13.*, and says .*rot26"),
    ],
)
def test_a_built_in_that_waits_may_turn_out_broken(install: Install, source: str, message: str) -> None:
    install("waits", source, dist="vbackup")
    registry = Registry.load()
    for _ in range(2):
        with pytest.raises(PluginError, match=f"the built-in plugin 'waits' is broken: {message}"):
            registry.codecs["rot13"]
    with pytest.raises(PluginError, match="the built-in plugin 'waits' is broken"):
        registry.plugins  # noqa: B018


def test_a_stranger_gets_no_name_of_one_that_waits(install: Install) -> None:
    install("waits", dedent(CODEC) + SAYS, dist="vbackup")
    install("thief", CODEC)
    registry = Registry.load()
    said = "codecs 'rot13' of plugin 'thief' is already that of plugin 'waits': leave one of them out, "
    assert plugin(registry, "thief").error.startswith(said)
    assert registry.codecs["rot13"].__module__ == "stranger_waits"


def test_a_stranger_that_waits_and_turns_out_broken_is_left_out(install: Install) -> None:
    install("late", f"{SAYS}\n{RAISES}")
    registry = Registry.load()
    assert "rot13" in registry.codecs
    with pytest.raises(KeyError):
        registry.codecs["rot13"]
    assert "rot13" not in registry.codecs
    late = plugin(registry, "late")
    assert late.status == "broken"
    assert "raised ZeroDivisionError" in late.error


HEARS = """
    heard = []

    @hookimpl
    def vbackup_job_started(event):
        heard.append(event)
"""


def test_who_was_left_out_hears_nothing_more(install: Install) -> None:
    install("late", f"{SAYS}\n{RAISES}\n{dedent(HEARS)}")
    registry = Registry.load()
    registry.emit_started(EVENTS[0])
    assert plugin(registry, "late").status == "broken"
    registry.emit_started(EVENTS[0])
    assert sys.modules["stranger_late"].heard == [EVENTS[0]]


def test_the_names_of_who_was_left_out_are_free() -> None:
    class Late:
        VBACKUP_BRINGS = {"codecs": ["zstd"]}

        @hookimpl
        def vbackup_register_codecs(self, register: Callable[[object], None]) -> None:
            raise RuntimeError("no")

    registry = Registry()
    registry.register(Late(), "late")
    assert plugin(registry, "late").status == "broken"
    registry.register(vbackup_zstd, "zstd")
    assert registry.codecs["zstd"].__name__ == "Zstd"
    assert plugin(registry, "zstd").roles == {"codecs": ["zstd"]}


@pytest.mark.parametrize("said", ["1", '["rot13"]', '{"codecs": [1]}', '{"code": ["rot13"]}', '{"codecs": 1}'])
def test_a_stranger_may_say_nonsense(install: Install, said: str) -> None:
    install("odd", dedent(CODEC) + f"VBACKUP_BRINGS = {said}")
    assert "its VBACKUP_BRINGS must be" in plugin(Registry.load(), "odd").error


def test_disabled_plugins_are_not_even_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bad", "1 / 0")
    monkeypatch.setenv("VBACKUP_DISABLED_PLUGINS", " bad ,lz4")
    registry = Registry.load()
    assert plugin(registry, "bad").status == "disabled"
    assert plugin(registry, "lz4").status == "disabled"
    assert "lz4" not in registry.codecs
    assert "stranger_bad" not in sys.modules


class Listener:
    """Hears everything."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    def vbackup_job_started(self, event: JobStarted) -> None:
        self.heard.append(event)

    @hookimpl
    def vbackup_job_progress(self, event: JobProgress) -> None:
        self.heard.append(event)

    @hookimpl
    def vbackup_job_finished(self, event: JobFinished) -> None:
        self.heard.append(event)


class Raises:
    """Fails at everything."""

    @hookimpl
    def vbackup_job_started(self, event: JobStarted) -> None:
        raise RuntimeError("no")

    @hookimpl
    def vbackup_job_progress(self, event: JobProgress) -> None:
        raise RuntimeError("no")


EVENTS = (
    JobStarted("j", "h", "m"),
    JobProgress("j", "h", "m", DiskProgress("vda", 4, 3, 2, 1, 0, 0)),
    JobFinished("j", "h", "m", point="00"),
)


def emit_all(registry: Registry) -> None:
    registry.emit_started(EVENTS[0])
    registry.emit_progress(EVENTS[1])
    registry.emit_finished(EVENTS[2])


def test_a_hook_that_raises_is_logged_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    registry, first, last = Registry(), Listener(), Listener()
    registry.register(first, "first")
    registry.register(Raises(), "raises")
    registry.register(last, "last")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            emit_all(registry)
    assert first.heard == last.heard == [*EVENTS] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "plugin 'raises': vbackup_job_started raised RuntimeError",
        "plugin 'raises': vbackup_job_progress raised RuntimeError",
    ]


def test_registering_a_broken_plugin_raises_and_leaves_nothing() -> None:
    class Wrong:
        @hookimpl
        def vbackup_register_codecs(self, register: Callable[[object], None]) -> None:
            register(Options)

    registry = Registry()
    with pytest.raises(PluginError, match="class Options has no usable `name`"):
        registry.register(Wrong(), "wrong")
    assert registry.plugins == ()
    registry.register(Listener(), "wrong")


def test_hook_calls_are_traced_without_their_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VBACKUP_TRACE_HOOKS", "1")
    registry = Registry()
    registry.register(Listener(), "listener")
    registry.register(Raises(), "raises")
    registry.emit_started(JobStarted("job", "hypervisor", "canary"))
    err = capsys.readouterr().err
    assert "hook listener: vbackup_job_started(event: JobStarted)\n" in err
    assert "hook raises: vbackup_job_started raised RuntimeError\n" in err
    assert "canary" not in err


def tasks(count: int) -> list[Task]:
    return [Task("job", "lab", f"m{number}") for number in range(count)]


def test_the_executor_runs_each_task_once_and_no_more_at_once_than_asked() -> None:
    together = threading.Barrier(3)
    running = 0
    most = 0
    lock = threading.Lock()

    def work(task: Task) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(30)
        with lock:
            running -= 1
        return task.machine.upper()

    executor = InProcess(InProcess.options())
    results = dict(executor.run(tasks(9), work, 3))
    assert results == {task: task.machine.upper() for task in tasks(9)}
    assert most == 3


def test_closing_the_executors_iterator_waits_for_what_runs_and_starts_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []
    ended: list[str] = []
    second_runs, go_on = threading.Event(), threading.Event()
    wait = parallel.Gate.wait_until_empty

    def go_on_and_wait(gate: parallel.Gate) -> None:
        go_on.set()
        wait(gate)

    def work(task: Task) -> None:
        begun.append(task.machine)
        if task.machine != "m0":
            second_runs.set()
            go_on.wait(30)
        ended.append(task.machine)

    monkeypatch.setattr(parallel.Gate, "wait_until_empty", go_on_and_wait)
    results = InProcess(InProcess.options()).run(tasks(5), work, 1)
    assert next(results)[0].machine == "m0"
    assert second_runs.wait(30)
    results.close()  # type: ignore[attr-defined]
    assert begun == ended == ["m0", "m1"]


def test_a_task_whose_thread_the_pool_forgot_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a signal arrives in the moment between the start of a thread and the pool's note of it."""
    ended: list[str] = []
    runs, go_on = threading.Event(), threading.Event()
    start, wait = threading.Thread.start, parallel.Gate.wait_until_empty

    def start_and_stop(thread: threading.Thread) -> None:
        start(thread)
        assert runs.wait(30)
        raise KeyboardInterrupt

    def go_on_and_wait(gate: parallel.Gate) -> None:
        go_on.set()
        wait(gate)

    def work(task: Task) -> None:
        runs.set()
        go_on.wait(30)
        ended.append(task.machine)

    monkeypatch.setattr(threading.Thread, "start", start_and_stop)
    monkeypatch.setattr(parallel.Gate, "wait_until_empty", go_on_and_wait)
    with pytest.raises(KeyboardInterrupt):
        list(InProcess(InProcess.options()).run(tasks(3), work, 2))
    assert ended == ["m0"]
