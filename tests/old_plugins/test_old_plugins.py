"""Plugins that were built for an API version when it was new go on to load, and to work."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import noise
from vbackup.api import CodecContext, Corrupt, Task
from vbackup.guards.blame import Blame
from vbackup.guards.executor import each_once
from vbackup.registry import Registry
from vbackup.testing.site import Site, configuration

HERE = Path(__file__).parent
ROLES = ("codec", "command", "events", "executor", "hypervisor", "target", "transport")
WHEELS = sorted((HERE / "wheels").glob("*.whl"))
CONTEXT = CodecContext(b"", b"", b"")
BLAME = Blame("old-executor", "vbackup-old-executor", builtin=False, what="executor old-executor")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all of them, as an installer unpacks them."""
    place = tmp_path_factory.mktemp("old")
    for wheel in WHEELS:
        zipfile.ZipFile(wheel).extractall(place)
    return place


@pytest.fixture
def registry(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """What is loaded with them beside the built-in ones."""
    monkeypatch.syspath_prepend(str(installed))
    yield Registry.load()
    for name in [name for name in sys.modules if name.startswith("vbackup_old_")]:
        del sys.modules[name]


@pytest.fixture
def site(installed: Path, tmp_path: Path) -> Site:
    """Two machines of the old hypervisor, on the old transport, through the old codec, by the old executor."""
    (tmp_path / "machines").mkdir()
    for name in ("web", "db"):
        (tmp_path / "machines" / f"{name}.raw").write_bytes(content(name))
    lab = {"type": "old-hypervisor", "path": str(tmp_path / "machines")}
    store = {"type": "old-transport", "path": str(tmp_path / "store"), "retry": {"deadline": "1s"}}
    codecs = [{"type": "old-codec", "level": 9}, {"type": "aes-256-gcm"}]
    config = configuration(tmp_path, lab, transport=store, target={"codecs": codecs})
    env = {"PYTHONPATH": str(installed), "OLD_EVENTS": str(tmp_path / "events")}
    return Site(tmp_path, {**config, "executor": {"type": "old-executor"}}, env=env, timeout=60)


def content(name: str) -> bytes:
    return noise(100_000, len(name)) + name.encode() * 100_000 + bytes(200_000)


def test_there_is_one_of_each_role_and_it_is_small_and_what_its_source_says() -> None:
    assert [wheel.name for wheel in WHEELS] == [f"vbackup_old_{role}-1.0-py3-none-any.whl" for role in ROLES]
    for role, wheel in zip(ROLES, WHEELS, strict=True):
        assert wheel.stat().st_size < 10_000
        module = f"vbackup_old_{role}.py"
        assert zipfile.ZipFile(wheel).read(module) == (HERE / "sources" / role / module).read_bytes()


def test_all_of_them_load(registry: Registry) -> None:
    old = {plugin.name: plugin for plugin in registry.plugins if plugin.name.startswith("old-")}
    assert old.keys() == {f"old-{role}" for role in ROLES}
    assert {plugin.status for plugin in old.values()} == {"ok"}
    assert {plugin.origin for plugin in old.values()} == {f"vbackup-old-{role}" for role in ROLES}


def test_the_codec_gives_back_what_it_took(registry: Registry) -> None:
    codec = registry.codecs["old-codec"](registry.codecs["old-codec"].options())
    for plain in (b"", b"x", bytes(1 << 20), noise(100_000, 1)):
        encoded = codec.encode(memoryview(plain), CONTEXT)
        assert codec.decode(memoryview(encoded), CONTEXT, len(plain)) == plain
        with pytest.raises(Corrupt):
            codec.decode(encoded[:-1], CONTEXT, len(plain))
    with pytest.raises(Corrupt):
        codec.decode(codec.encode(bytes(1 << 20), CONTEXT), CONTEXT, 1000)


def test_the_executor_runs_each_task_once(registry: Registry) -> None:
    tasks = [Task("nightly", "lab", name) for name in ("web", "db")]
    executor = registry.executors["old-executor"](registry.executors["old-executor"].options())
    assert list(each_once(executor, tasks, lambda task: task.machine.upper(), 2, BLAME)) == [
        (tasks[0], "WEB"),
        (tasks[1], "DB"),
    ]


def test_hypervisor_transport_codec_events_and_command_work_together(site: Site, tmp_path: Path) -> None:
    site("init")
    site("run")
    (tmp_path / "machines" / "web.raw").write_bytes(content("web")[::-1])
    site("run", "lab:web")
    site("verify")
    site("check", "--read-data")
    points = sorted(
        (point for point in site.json("list") if point["machine"] == "web"), key=lambda point: point["time"]
    )
    for name, point, expected in (
        ("first", points[0], content("web")),
        ("second", points[1], content("web")[::-1]),
    ):
        site("restore", point["id"], "--as", name)
        assert (tmp_path / "machines" / f"{name}.raw").read_bytes() == expected
    heard = (tmp_path / "events").read_text().splitlines()
    assert heard.count("nightly lab:web started") == 2
    assert f"nightly lab:web finished {points[0]['id']}  0" in heard
    assert any(line.startswith("nightly lab:db disk0 ") for line in heard)
    assert site("old-command", "old-hypervisor", code=3).stdout == "lab: db, first, second, web\n"


def test_the_target_gives_back_what_it_took(site: Site, tmp_path: Path) -> None:
    site.configure({**site.config, "targets": {"main": {"type": "old-target", "transport": "store"}}})
    site("init")
    site("run", code=(0, 3))
    site("verify")
    for name in ("web", "db"):
        site("restore", f"{name}@latest", "--as", f"{name}-copy")
        assert (tmp_path / "machines" / f"{name}-copy.raw").read_bytes() == content(name)


def test_the_transport_is_one_as_the_contract_says(site: Site) -> None:
    site("init")
    outcome = site("transport", "test", "store", code=(0, 3))
    assert "fails" not in outcome.stdout
