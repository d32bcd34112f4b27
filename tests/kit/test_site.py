"""The site of the kit: the real command in a process of its own, and what it says when something is wrong."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from vbackup.testing.images import ImageMachine
from vbackup.testing.plugin import MakeSite
from vbackup.testing.site import CommandFailed, Site, configuration


@pytest.fixture
def site(vbackup_site: MakeSite, tmp_path: Path) -> Site:
    """One machine of one image, nothing backed up yet."""
    return vbackup_site(configuration(tmp_path, ImageMachine(tmp_path, size=1 << 20).hypervisor))


def test_a_backup_and_what_is_listed(site: Site) -> None:
    site("init")
    result = site("run", "nightly")
    assert (result.code, result.argv) == (0, ("run", "nightly"))
    (point,) = site.json("list")
    assert (point["machine"], point["hypervisor"], point["target"]) == ("web", "lab", "main")
    assert point["stored"] > 0


def test_events_are_lines_of_json(site: Site) -> None:
    site("init")
    events = site.events("run")
    assert {"started", "finished", "report"} <= {event["event"] for event in events}
    assert [machine["machine"] for machine in events[-1]["machines"]] == ["web"]


def test_another_exit_code_is_told_with_all_that_was_printed(site: Site) -> None:
    with pytest.raises(CommandFailed, match=r"expected exit code 0: `vbackup run nightly` ended with 1") as told:
        site("run", "nightly")
    assert told.value.result.stderr in str(told.value)
    assert "vbackup init" in told.value.result.stderr


@pytest.mark.parametrize("code", [1, (0, 1), None])
def test_an_exit_code_that_was_expected_is_a_result(site: Site, code: int | tuple[int, ...] | None) -> None:
    result = site("run", "nightly", code=code)
    assert result.code == 1
    assert "vbackup init" in result.stderr


def test_success_that_was_not_expected_is_told(site: Site) -> None:
    with pytest.raises(CommandFailed, match="expected exit code 2 or 3: `vbackup --version` ended with 0"):
        site("--version", code=(2, 3))


def test_errors_as_json(site: Site) -> None:
    assert site.json("restore", "web@latest", code=1)["error"]["message"]


def test_everything_lies_in_its_directory(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And nothing of the one who runs the tests is used."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VBACKUP_CONFIG", "/nowhere/vbackup.yaml")
    (tmp_path / "home").mkdir()
    again = Site(site.directory, site.config, env={"HOME": str(tmp_path / "home")})
    again("init")
    again("run")
    assert {path.name for path in site.directory.iterdir()} == {"vbackup.yaml", "state", "cache"}
    assert list((tmp_path / "home").iterdir()) == []


def test_modules_in_its_directory_are_not_imported(site: Site) -> None:
    (site.directory / "json.py").write_text("raise SystemExit('imported by mistake')")
    assert site("--version").stdout.startswith("vbackup ")


def test_another_configuration(site: Site) -> None:
    site.configure({**site.config, "jobs": {"weekly": site.config["jobs"]["nightly"]}})
    site("init")
    site("run", "weekly")
    assert site("run", "nightly", code=2).stderr


def test_the_environment_is_added_to(vbackup_site: MakeSite, tmp_path: Path) -> None:
    site = vbackup_site(configuration(tmp_path, {"type": "image"}), name="two", env={"VBACKUP_DEBUG": "1"})
    assert site.directory == tmp_path / "two"
    assert "Traceback" in site("list", code=1).stderr


def test_paths_in_a_configuration_are_written_as_text(vbackup_site: MakeSite, tmp_path: Path) -> None:
    config = configuration(tmp_path, {"type": "image"}, transport={"type": "local", "path": tmp_path / "elsewhere"})
    vbackup_site(config)("init")
    assert (tmp_path / "elsewhere").is_dir()


def test_what_takes_too_long_is_killed(site: Site) -> None:
    os.mkfifo(site.directory / "endless")
    site.timeout = 3
    with pytest.raises(CommandFailed, match="killed after 3 s: `vbackup -c endless list`"):
        site("-c", "endless", "list")  # nobody ever writes to it


def test_a_command_that_a_test_starts_itself(site: Site) -> None:
    os.mkfifo(site.directory / "endless")
    argv = site.argv("-c", "endless", "list")
    with subprocess.Popen(argv, env=site.env, cwd=site.directory, stderr=subprocess.PIPE) as process:
        writer = (site.directory / "endless").open("w")  # waits until it reads: it is at work
        process.send_signal(signal.SIGTERM)
        writer.close()
        assert process.wait() in {128 + signal.SIGTERM, 2}
