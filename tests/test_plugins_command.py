"""``vbackup plugins``: what is told of strangers' plugins, good and bad."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from vbackup.cli.main import execute

Run = Callable[..., tuple[int, str, str]]
Install = Callable[..., None]

CLOUD = """
    from typing import Callable, ClassVar, Literal
    from pydantic import Field
    from vbackup.api import Options, SecretRef, hookimpl
    from vbackup.testing.transports import MemoryTransport

    VBACKUP_API_VERSION = 1
    VBACKUP_BRINGS = {"transports": ["cloud"]}

    class Proxy(Options):
        host: str = Field(description="its name")
        port: int = Field(default=8080, ge=1, le=65535, description="of the proxy")

    class CloudOptions(Options):
        bucket: str = Field(description="where objects are kept")
        region: Literal["here", "there"] = Field(default="here", description="which site")
        password: SecretRef | None = Field(default=None, description="of the account")
        proxies: tuple[Proxy, ...] = Field(default=(), description="tried one after the other")
        ratio: float = Field(default=0.5, gt=0, lt=1, description="a part")
        labels: dict[str, int] = Field(default_factory=dict, description="what it is marked with")
        either: int | str | None = None

    class Cloud(MemoryTransport):
        name = "cloud"
        options = CloudOptions

    @hookimpl
    def vbackup_register_transports(register):
        register(Cloud)

    @hookimpl
    def vbackup_job_finished(event): ...
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a stranger's distribution with one plugin, as pip would leave it on the path."""
    made = []

    def install(name: str, source: str) -> None:
        site = tmp_path / "site" / name
        info = site / f"vbackup_{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (site / f"stranger_{name}.py").write_text(dedent(source))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vbackup-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[vbackup]\n{name} = stranger_{name}\n")
        monkeypatch.syspath_prepend(str(site))
        made.append(f"stranger_{name}")

    yield install
    for module in made:
        sys.modules.pop(module, None)


@pytest.fixture
def vbackup(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run a command line."""
    root, handlers, level = logging.getLogger(), list(logging.getLogger().handlers), logging.getLogger().level

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return execute(args), *capsys.readouterr()

    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


def listed(vbackup: Run, name: str) -> dict[str, Any]:
    code, out, _ = vbackup("plugins", name, "--json")
    assert code == 0
    (plugin,) = json.loads(out)
    return dict(plugin)


def test_all_that_is_known_of_a_strangers_plugin(install: Install, vbackup: Run) -> None:
    install("cloud", CLOUD)
    plugin = listed(vbackup, "cloud")
    options = plugin.pop("options")["transports"]["cloud"]
    assert plugin == {
        "name": "cloud",
        "origin": "vbackup-cloud",
        "version": "1.2",
        "module": "stranger_cloud",
        "builtin": False,
        "status": "ok",
        "error": "",
        "api_version": 1,
        "waits": True,
        "hooks": ["vbackup_job_finished", "vbackup_register_transports"],
        "roles": {"transports": ["cloud"]},
    }
    assert [(each["key"], each["type"], each["required"], each["default"]) for each in options] == [
        ("bucket", "text", True, None),
        ("region", "here | there", False, "here"),
        ("password", "secret (env, file, credential or command)", False, None),
        ("proxies", "list of mapping", False, []),
        ("proxies[].host", "text", True, None),
        ("proxies[].port", "integer, at least 1, at most 65535", False, 8080),
        ("ratio", "number, above 0, below 1", False, 0.5),
        ("labels", "mapping of names to integer", False, None),
        ("either", "integer or text", False, None),
    ]
    assert options[0]["meaning"] == "where objects are kept"


def test_the_same_for_people(install: Install, vbackup: Run) -> None:
    install("cloud", CLOUD)
    code, out, _ = vbackup("plugins", "cloud")
    assert code == 0
    assert "from         vbackup-cloud 1.2 (stranger_cloud)\nstatus       ok\nAPI version  1\n" in out
    assert "loaded       when something of it is wanted\n" in out
    assert "brings       transports: cloud; events: finished\n\noptions of transports: cloud\nKEY " in out
    assert "bucket          text                                       (required)  where objects are kept\n" in out
    assert any(line.split() == ["cloud", "vbackup-cloud", "1.2", "ok", "transports:", "cloud;", "events:", "finished"]
               for line in vbackup("plugins")[1].splitlines())  # fmt: skip


def test_a_built_in_says_no_version_and_does_not_wait(vbackup: Run) -> None:
    assert (listed(vbackup, "zstd")["api_version"], listed(vbackup, "zstd")["waits"]) == (None, False)
    out = vbackup("plugins", "zstd")[1]
    assert "API version  not stated, taken for 1\nloaded       when plugins are looked for\n" in out
    assert "options of codecs: aes-256-gcm\nKEY" in (out := vbackup("plugins", "aead")[1])
    assert "there are none" in out


def test_health(install: Install, vbackup: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bad", "import nothing_of_that_name")
    install("late", dedent(CLOUD).replace("register(Cloud)", "1 / 0"))
    install("unwanted", "1 / 0")
    monkeypatch.setenv("VBACKUP_DISABLED_PLUGINS", "unwanted,lz4")
    bad, late, unwanted = (listed(vbackup, name) for name in ("bad", "late", "unwanted"))
    assert (bad["status"], late["status"], unwanted["status"]) == ("broken", "broken", "disabled")
    assert "No module named 'nothing_of_that_name'" in bad["error"]
    assert "vbackup_register_transports raised ZeroDivisionError" in late["error"]
    assert (late["hooks"], late["roles"], late["options"]) == ([], {}, {})
    assert "stranger_unwanted" not in sys.modules
    assert "status       broken: stranger_bad cannot be imported: ModuleNotFoundError" in vbackup("plugins", "bad")[1]
    assert "status       disabled\n" in vbackup("plugins", "unwanted")[1]


def test_how_to_leave_one_out_is_told(vbackup: Run) -> None:
    out = vbackup("plugins", "--help")[1]
    assert "VBACKUP_DISABLED_PLUGINS=NAME" in out
    assert "VBACKUP_TRACE_HOOKS=1" in out


def test_a_name_that_nobody_has(vbackup: Run) -> None:
    code, _, err = vbackup("plugins", "zst")
    assert code == 1
    assert err.startswith("vbackup: error: there is no plugin 'zst'; did you mean 'zstd'?\nhint: ")


def test_two_of_one_name_are_both_shown(install: Install, vbackup: Run) -> None:
    install("zstd", CLOUD)
    plugins = json.loads(vbackup("plugins", "zstd", "--json")[1])
    assert [(plugin["builtin"], plugin["status"]) for plugin in plugins] == [(True, "ok"), (False, "broken")]


def test_hook_calls_are_shown(install: Install, tmp_path: Path) -> None:
    install("cloud", CLOUD)
    command = [sys.executable, "-c", "from vbackup.cli.main import main; main()", "plugins", "cloud"]
    env = os.environ | {"PYTHONPATH": str(tmp_path / "site" / "cloud"), "VBACKUP_TRACE_HOOKS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert "hook cloud: vbackup_register_transports(register: function)\n" in done.stderr
    assert "hook zstd: vbackup_register_codecs(register: function)\n" in done.stderr
    del env["VBACKUP_TRACE_HOOKS"]
    assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stderr == ""
