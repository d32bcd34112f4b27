"""A place with a good backup in it, and plugins of strangers that are let loose on it."""

from __future__ import annotations

import ast
import importlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent, indent
from typing import Any, NamedTuple

import pytest

from tests.support import noise, restored
from vbackup.api import Point
from vbackup.cli.main import execute
from vbackup.config import load
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.testing.hypervisors import FakeDisk, FakeMachine

SIZE = 1 << 20
CHUNK = 64 << 10
TAME = (Path(__file__).parent / "tame.py").read_text()
WILD = """
from contextlib import contextmanager
import threading, time, os, sys
from stranger_tame import *
del vbackup_register_hypervisors, vbackup_register_transports

class Wild({base}):
    name = "wild"
{body}

@hookimpl
def vbackup_register_{role}(register):
    register(Wild)
"""
REGISTER = """

from vbackup.api import hookimpl

{cls}.name = "wild"

@hookimpl
def vbackup_register_{role}(register):
    register({cls})
"""


class Fault(NamedTuple):
    """A class of one of the files ``wild_*.py``: what it does wrong is its name, what is told of that its docstring."""

    file: str
    role: str
    """As its hook is named; the file's unless the class says otherwise."""
    name: str
    told: str
    ends: int
    """The exit code: 1 unless the class says otherwise."""

    def __str__(self) -> str:
        return self.name


def faults(file: str) -> list[Fault]:
    """Return the classes of one of the files."""
    found = []
    for node in ast.parse(_source(file)).body:
        if isinstance(node, ast.ClassDef):
            own = {
                ast.unparse(part.targets[0]): ast.literal_eval(part.value)
                for part in node.body
                if isinstance(part, ast.Assign) and isinstance(part.value, ast.Constant)
            }
            told = ast.get_docstring(node) or ""
            found.append(Fault(file, own.get("role", file), node.name, told, own.get("ends", 1)))
    return found


def _source(file: str) -> str:
    return (Path(__file__).parent / f"wild_{file}.py").read_text()


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


class Place:
    """A directory with a configuration, a repository in ``store``, and plugins that are installed for it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.sites = directory / "sites"
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.modules: list[str] = []
        self.old: dict[str, dict[str, bytes]] = {}
        self.config: dict[str, Any] = {
            "hypervisors": {"lab": {"type": "tame"}},
            "transports": {"disk": {"type": "local", "path": str(directory / "store"), "retry": {"deadline": "1s"}}},
            "targets": {
                "main": {
                    "type": "repository",
                    "transport": "disk",
                    "codecs": [],
                    "chunk_size": CHUNK,
                    "key": {"file": str(directory / "main.key")},
                }
            },
            "jobs": {"nightly": {"machines": ["lab:*"], "target": "main", "quiesce": "no"}},
        }

    def install(self, name: str, source: str, *, dist: str = "") -> Any:
        """Install a plugin as pip would leave it; return its module when it can be imported."""
        module = f"stranger_{name}"
        info = self.sites / name / f"{dist or module}-1.2.dist-info"
        info.mkdir(parents=True)
        (self.sites / name / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist or module}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[vbackup]\n{name} = {module}\n")
        self._monkeypatch.syspath_prepend(str(self.sites / name))
        self.modules.append(module)

    def tame(self) -> Any:
        """Install the plugin with which all is well; return its module."""
        self.install("tame", TAME)
        module = importlib.import_module("stranger_tame")
        module.GUESTS["web"] = FakeMachine({"vda": FakeDisk(bytearray(content(1)))}, files={"nvram": b"settings"})
        return module

    def wild(self, role: str, base: str, body: str) -> None:
        """Install one that misbehaves, and use it: a class of ``role`` with a body of its own."""
        self.install("wild", WILD.format(role=role, base=base, body=indent(dedent(body), "    ")))
        self._use(role)

    def let_loose(self, fault: Fault) -> None:
        """Install one of the classes with a fault, as the only one of its plugin, and use it."""
        register = REGISTER.format(role=fault.role, cls=fault.name)
        self.install("wild", _source(fault.file) + register)
        self._use(fault.role)

    def _use(self, role: str) -> None:
        section = {"hypervisors": "lab", "transports": "disk", "targets": "main"}
        if role == "codecs":
            self.config["targets"]["main"]["codecs"] = [{"type": "wild"}]
        elif role == "executors":
            self.config["executor"] = {"type": "wild"}
        elif role in section:
            self.config[role][section[role]]["type"] = "wild"

    def vbackup(self, *args: str) -> Outcome:
        """Run a command line in this process, and see that it says all in words."""
        (self.directory / "vbackup.yaml").write_text(json.dumps(self.config))
        self._capsys.readouterr()
        outcome = Outcome(execute(args), *self._capsys.readouterr())
        assert "Traceback" not in outcome.out + outcome.err
        assert "fault of vbackup" not in outcome.err
        return outcome

    def refused(self, *args: str, by: str, code: int = 1) -> Outcome:
        """Run a command that a plugin spoils: what it did is told with its name, and what to do about it."""
        outcome = self.vbackup(*args)
        assert by in outcome.err, outcome.err
        assert outcome.code == code, outcome.err
        assert "VBACKUP_DISABLED_PLUGINS=wild" in outcome.err, outcome.err
        return outcome

    def site(self) -> Site:
        (self.directory / "vbackup.yaml").write_text(json.dumps(self.config))
        registry = Registry.load()
        return Site(load(self.directory / "vbackup.yaml", registry), registry)

    def points(self) -> list[Point]:
        with self.site() as site:
            return site.target("main").points()

    def calm(self) -> None:
        """Go on without the plugin that misbehaved."""
        self._monkeypatch.setenv("VBACKUP_DISABLED_PLUGINS", "wild")
        self.config.pop("executor", None)
        self.config["hypervisors"]["lab"]["type"] = "tame"
        self.config["transports"]["disk"]["type"] = "local"
        self.config["targets"]["main"] |= {"type": "repository", "codecs": []}

    def prove(self) -> None:
        """See that nothing is damaged: all is verified, old points are what they were, and a new one can be made."""
        self.calm()
        verified = self.vbackup("verify")
        assert verified.code == 0, verified
        ran = self.vbackup("run")
        assert ran.code in (0, 3), ran.err
        with self.site() as site:
            target = site.target("main")
            found = {point.id: point for point in target.points()}
            for point, disks in self.old.items():
                assert restored(target, found[point]) == disks
            newest = max(found.values(), key=lambda point: point.time)
            guests = sys.modules["stranger_tame"].GUESTS
            assert restored(target, newest) == {"vda": bytes(guests["web"].disks["vda"].data)}


def content(seed: int) -> bytes:
    """A disk with noise, text that shrinks, and zeros."""
    return noise(SIZE // 4, seed) + (b"line %d\n" % seed * SIZE)[: SIZE // 2] + bytes(SIZE // 4)


class released_by(logging.Handler):  # noqa: N801 - reads as a context
    """Sets the event ``GO`` of the tame plugin when something was told."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            sys.modules["stranger_tame"].GO.set()

    def __enter__(self) -> None:
        logging.getLogger().addHandler(self)

    def __exit__(self, *exc: object) -> None:
        logging.getLogger().removeHandler(self)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first backup is made, once."""
    return tmp_path_factory.mktemp("hostile") / "prepared"


@pytest.fixture
def place(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Place]:
    """A place with one restore point; since then the machine has changed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VBACKUP_CONFIG", raising=False)
    monkeypatch.delenv("VBACKUP_DISABLED_PLUGINS", raising=False)
    monkeypatch.setenv("VBACKUP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VBACKUP_CACHE_DIR", str(tmp_path / "cache"))
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level
    made = Place(tmp_path, monkeypatch, capsys)
    module = made.tame()
    if not prepared.exists():
        (tmp_path / "store").mkdir()
        assert made.vbackup("init").code == 0
        assert made.vbackup("run").code == 0
        prepared.mkdir()
        (point,) = made.points()
        (prepared / "point").write_text(point.id)
        for part in ("store", "state", "main.key"):
            _copy(tmp_path / part, prepared / part)
    for part in ("store", "state", "main.key"):
        _copy(prepared / part, tmp_path / part)
    made.old[(prepared / "point").read_text()] = {"vda": content(1)}
    module.GUESTS["web"].disks["vda"].write(CHUNK, noise(CHUNK, 2))
    module.GUESTS["web"].disks["vda"].write(8 * CHUNK, b"other text\n" * 20000)
    yield made
    root.handlers[:] = before
    root.setLevel(level)
    for name in made.modules:
        sys.modules.pop(name, None)


def _copy(source: Path, to: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, to, dirs_exist_ok=True)
    else:
        shutil.copy2(source, to)
