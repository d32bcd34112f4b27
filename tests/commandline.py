"""Command lines, run on the real image of a machine and a real repository."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from vbackup.cli.main import execute

MIB = 1 << 20
VBACKUP = (sys.executable, "-c", "from vbackup.cli.main import main; main()")


class Outcome(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Vbackup = Callable[..., Outcome]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a configuration and an image of a machine, current for the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VBACKUP_CONFIG", raising=False)
    monkeypatch.setattr("vbackup.config.loader.SYSTEM", tmp_path / "no-such-file")
    monkeypatch.setenv("VBACKUP_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VBACKUP_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "store").mkdir()
    qemu("img", "create", "-q", "-f", "qcow2", "web.qcow2", "16M")
    write(tmp_path / "web.qcow2", pattern=7, offset=0, length=4 * MIB)
    configure(tmp_path, web="web.qcow2")
    return tmp_path


@pytest.fixture
def vbackup(place: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Vbackup]:
    """Runs a command line in this process."""
    root, before = logging.getLogger(), list(logging.getLogger().handlers)
    level = root.level

    def run(*args: str) -> Outcome:
        capsys.readouterr()
        code = execute(args)
        return Outcome(code, *capsys.readouterr())

    yield run
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def ready(vbackup: Vbackup) -> Vbackup:
    """The same, with the target initialised and one restore point made."""
    assert vbackup("init").code == 0
    assert vbackup("run").code == 0
    return vbackup


def qemu(tool: str, *args: str) -> None:
    subprocess.run([f"qemu-{tool}", *args], check=True, capture_output=True)


def write(image: Path, *, pattern: int, offset: int, length: int) -> None:
    qemu("io", "-f", "qcow2", "-c", f"write -P {pattern} {offset} {length}", str(image))


def configure(place: Path, **machines: str) -> None:
    images = {name: [{"path": str(place / image), "format": "qcow2"}] for name, image in machines.items()}
    config = {
        "hypervisors": {"files": {"type": "image", "machines": images}},
        "transports": {"disk": {"type": "local", "path": str(place / "store")}},
        "targets": {"main": {"type": "repository", "transport": "disk", "key": {"file": str(place / "main.key")}}},
        "jobs": {"nightly": {"machines": ["files:*"], "target": "main", "quiesce": "no"}},
    }
    (place / "vbackup.yaml").write_text(json.dumps(config))  # JSON is YAML
