"""A place for tests of jobs and commands: two hypervisors in memory, and a repository in a directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import guest, noise
from vbackup.api import Point, Register, hookimpl
from vbackup.cli.main import execute
from vbackup.config import load
from vbackup.jobs.init import init
from vbackup.jobs.run import MachineResult, RunReport, run
from vbackup.jobs.site import Site
from vbackup.registry import Registry
from vbackup.testing.hypervisors import FakeHypervisor

SIZE = 256 << 10


class Other(FakeHypervisor):
    """One of another type."""

    name = "other"


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Plugin:
    """Registers classes whose instances of one alias are the same machines."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @hookimpl
    def vbackup_register_hypervisors(self, register: Register[Any]) -> None:
        for kind in (FakeHypervisor, Other):
            register(self._shared(kind))

    def _shared(self, kind: type[FakeHypervisor]) -> Any:
        known = self._lab.hypervisors

        def new(cls: type, options: Any, context: Any) -> Any:
            if context.alias not in known:
                known[context.alias] = kind()
            return known[context.alias]

        return type(kind.__name__, (kind,), {"__new__": new, "__init__": kind.__init__})


class Lab:
    """Hypervisors ``lab`` and ``vc`` (both of type fake) and ``away`` (of type other), by alias."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.hypervisors: dict[str, FakeHypervisor] = {}
        self._capsys = capsys
        self.config: dict[str, Any] = {
            "hypervisors": {"lab": {"type": "fake"}, "vc": {"type": "fake"}, "away": {"type": "other"}},
            "transports": {"disk": {"type": "local", "path": str(directory / "store")}},
            "targets": {
                "main": {
                    "type": "repository",
                    "transport": "disk",
                    "codecs": [],
                    "chunk_size": 64 << 10,
                    "key": {"file": str(directory / "main.key")},
                }
            },
            "jobs": {"nightly": {"machines": ["lab:*"], "target": "main", "quiesce": "no"}},
        }
        self.hypervisors.update(lab=FakeHypervisor(), vc=FakeHypervisor(), away=Other())

    def group(self, name: str, *members: str | dict[str, Any]) -> None:
        machines = [{"machine": member} if isinstance(member, str) else member for member in members]
        self.config.setdefault("groups", {})[name] = {"machines": machines}

    def job(self, *machines: str, **job: Any) -> None:
        self.config["jobs"]["nightly"] |= {"machines": list(machines), **job}

    def guests(self, *names: str) -> None:
        """Make machines, as ``hypervisor:name``."""
        for number, name in enumerate(names):
            alias, _, machine = name.partition(":")
            guest(self.hypervisors[alias], machine, noise(SIZE, number))

    def write(self) -> Path:
        path = self.directory / "vbackup.yaml"
        path.write_text(json.dumps(self.config))  # JSON is YAML
        return path

    def registry(self) -> Registry:
        registry = LOAD()
        registry.register(Plugin(self), "fakes")
        return registry

    def site(self) -> Site:
        registry = self.registry()
        state, cache = self.directory / "state", self.directory / "cache"
        return Site(load(self.write(), registry), registry, state_dir=state, cache_dir=cache)

    def run(self, *names: str) -> RunReport:
        with self.site() as site:
            return run(site, names)

    def points(self) -> list[Point]:
        with self.site() as site:
            return site.target("main").points()

    def vbackup(self, *args: str) -> Outcome:
        """Run a command line in this process."""
        self.write()
        self._capsys.readouterr()
        code = execute(args)
        return Outcome(code, *self._capsys.readouterr())


LOAD = Registry.load


def by_machine(report: RunReport) -> dict[str, MachineResult]:
    return {f"{result.task.hypervisor}:{result.task.machine}": result for result in report.results}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Lab]:
    """A place whose repository is initialised."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VBACKUP_CONFIG", raising=False)
    monkeypatch.setenv("VBACKUP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VBACKUP_CACHE_DIR", str(tmp_path / "cache"))
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level
    (tmp_path / "store").mkdir()
    made = Lab(tmp_path, capsys)
    monkeypatch.setattr(Registry, "load", lambda: made.registry())
    with made.site() as site:
        init(site, None)
    yield made
    root.handlers[:] = before
    root.setLevel(level)
