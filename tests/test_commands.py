"""Commands that plugins bring."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import click
import pytest

from vbackup.api import CommandContext, NotFound, PluginError, Register, hookimpl
from vbackup.cli.main import COMMANDS, execute
from vbackup.registry import Registry

Run = Callable[..., tuple[int, str, str]]


@click.group("lab")
def lab() -> None:
    """Look after the lab."""


@lab.command("names")
@click.option("--of", default="image")
@click.pass_obj
def names(context: CommandContext, of: str) -> int:
    """Print the names of hypervisors, and the machines of each."""
    found = {alias: [ref.name for ref in made.machines()] for alias, made in context.hypervisors(of).items()}
    context.write(json.dumps(found) if context.json else f"found: {', '.join(found)}\x1b[2J")
    return 3


@lab.command("fail")
def fail() -> None:
    """Raise what plugins raise."""
    raise NotFound("there is no lab", hint="build one")


@lab.command("complain")
def complain() -> None:
    """Raise what click has for it."""
    raise click.ClickException("no such bench")


class Plugin:
    def __init__(self, *commands: object) -> None:
        self._commands = commands

    @hookimpl
    def vbackup_register_commands(self, register: Register[click.Command]) -> None:
        for command in self._commands:
            register(command)  # type: ignore[arg-type]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command line, with the plugin above installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VBACKUP_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "vbackup.yaml").write_text("hypervisors: {files: {type: image, machines: {web: [/srv/web.raw]}}}")
    load = Registry.load

    def with_plugin() -> Registry:
        registry = load()
        registry.register(Plugin(lab), "laboratory")
        return registry

    monkeypatch.setattr(Registry, "load", with_plugin)
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return execute(args), *capsys.readouterr()

    yield run
    root.handlers[:] = before
    root.setLevel(level)


def test_a_plugins_command_is_found_and_gets_the_hypervisors(run: Run) -> None:
    assert run("lab", "names") == (3, "found: files\\x1b[2J\n", "")
    assert run("--json", "lab", "names") == (3, '{"files": ["web"]}\n', "")
    assert run("lab", "names", "--of", "libvirt") == (3, "found: \\x1b[2J\n", "")


def test_it_needs_a_configuration_only_when_it_asks(run: Run, tmp_path: Path) -> None:
    (tmp_path / "vbackup.yaml").write_text("nonsense: 1")
    assert run("lab", "fail") == (1, "", "vbackup: error: there is no lab\nhint: build one\n")
    code, _, err = run("lab", "names")
    assert code == 2
    assert "unknown key" in err


def test_it_has_help_and_its_errors_are_vbackups(run: Run) -> None:
    code, out, _ = run("lab", "--help")
    assert code == 0
    assert "Look after the lab." in out
    assert run("lab", "complain") == (1, "", "vbackup: error: no such bench\n")
    code, out, err = run("--json", "lab", "frobnicate")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "usage"
    assert "Traceback" not in err


def test_the_nearest_is_suggested_and_plugins_lists_it(run: Run) -> None:
    code, _, err = run("lap")
    assert code == 2
    assert "Did you mean 'lab'?" in err
    assert "commands: lab" in run("plugins")[1]
    plugins = json.loads(run("plugins", "--json")[1])
    assert [plugin["roles"] for plugin in plugins if plugin["name"] == "laboratory"] == [{"commands": ["lab"]}]


@pytest.mark.parametrize(
    ("commands", "message"),
    [
        ((click.Command("run"),), "'run' is one of vbackup's own"),
        ((click.Command("Lab"),), "no usable name: 'Lab'"),
        ((click.Command(None),), "no usable name: ''"),
        ((lab, lab), "two commands named 'lab'"),
        ((print,), "must register commands of click, not builtin_function_or_method"),
    ],
)
def test_what_is_no_command_is_refused_with_all_else_of_its_plugin(commands: tuple[object, ...], message: str) -> None:
    registry = Registry()
    with pytest.raises(PluginError, match=message):
        registry.register(Plugin(*commands), "bad")
    assert not registry.commands
    assert not registry.plugins


def test_a_name_that_another_plugin_has_is_refused() -> None:
    registry = Registry()
    registry.register(Plugin(lab), "first")
    with pytest.raises(PluginError, match="commands 'lab' of plugin 'second' is already that of plugin 'first'"):
        registry.register(Plugin(click.Command("lab")), "second")
    assert registry.commands == {"lab": lab}


def vbackup(plugins: Path, *args: str) -> subprocess.CompletedProcess[str]:
    program = "import sys; from vbackup.cli.main import main; sys.path.insert(0, sys.argv.pop(1)); main()"
    command = [sys.executable, "-c", program, str(plugins), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def install(plugins: Path, source: str) -> None:
    info = plugins / "stranger-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vbackup]\nstranger = stranger_plugin\n")
    (plugins / "stranger_plugin.py").write_text(dedent(source))


def test_a_broken_plugin_breaks_no_command_and_is_told(tmp_path: Path) -> None:
    install(tmp_path, "raise RuntimeError('bad day')")
    assert (found := vbackup(tmp_path, "plugins")).returncode == 0
    assert "stranger" in found.stdout
    unknown = vbackup(tmp_path, "lab")
    assert unknown.returncode == 2
    assert "vbackup: warning: plugin 'stranger' of stranger is left out" in unknown.stderr
    assert "No such command 'lab'" in unknown.stderr


def test_own_commands_begin_without_plugins(tmp_path: Path) -> None:
    """The help of each of them, and of vbackup, is there whatever a plugin does when it is imported."""
    install(tmp_path, "import os; os._exit(77)")
    for args in (("--help",), *((name, "--help") for name in COMMANDS[:3])):
        assert vbackup(tmp_path, *args).returncode == 0
    assert vbackup(tmp_path, "lab").returncode == 77
